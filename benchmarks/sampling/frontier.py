"""Pairs per second by their quality: the best plain way, the best way with drafts, and one way with drafts that was
chosen beforehand.
"""

from __future__ import annotations

import numpy as np

from ...dpo_core.settings import PairSettings
from ..common.tables import print_table
from .outcomes import MARGINS, PLAIN, outcome
from .records import Records, first_of
from .ways import drafted

CHOSEN = (16, 4, 1.0)
"""Drafts a prompt, their steps, and the margin of both pairings: chosen on concepts 0-3."""
LEVELS = tuple(round(0.5 + 0.02 * i, 2) for i in range(20))
"""Shares of better pairs."""
RESAMPLES = 2000


def frontier(rows: list[dict]) -> list[dict]:
    """The fastest plain way and the fastest way with drafts at each level of quality that either reaches: [{"quality",
    "plain", "drafted"}, ...].

    rows: those of `outcomes.table`. A way is {"way", "margin", "pairs_per_s"}, or None if none reaches the level.
    """

    def best(level: float, kind: str) -> dict | None:
        points = [
            {"way": r["way"], "margin": margin, "pairs_per_s": pairs / r["seconds"]}
            for r in rows
            if kind in r["way"]
            for margin, pairs, better in r["curve"]
            if pairs and better >= level * pairs
        ]
        return max(points, key=lambda p: p["pairs_per_s"], default=None)

    found = [{"quality": level, **{kind: best(level, kind) for kind in ("plain", "drafted")}} for level in LEVELS]
    return [f for f in found if f["plain"] or f["drafted"]]


def _counts(records: Records, kept: np.ndarray, margin: float, settings: PairSettings) -> np.ndarray:
    return outcome(records, kept, margin, settings)[:2]


def against_plain(
    concepts: list[Records], seconds: dict[str, float], settings: PairSettings, chosen: tuple = CHOSEN
) -> dict:
    """Pairs per second of the chosen way with drafts, as a ratio to the fastest plain way of any number and margin with
    pairs of at least the same quality, or else of the best quality.

    95 % interval by bootstrap over concepts. The plain way is selected again in each resample, which favours it.
    """
    count, steps, margin = chosen
    denoise, look = seconds["denoise"], seconds["decode"] + seconds["score"]
    ours, plain = [], []
    for one in concepts:
        kept = drafted(one, count, steps, settings.model_copy(update={"margin": margin}))
        cost = first_of(one, count).sum() * (seconds[f"draft_{steps}"] + look) + kept.sum() * (denoise + look)
        ours.append([*_counts(one, kept, margin, settings), cost])
        wholes = [first_of(one, n) for n in PLAIN]
        plain.append([[*_counts(one, w, m, settings), w.sum() * (denoise + look)] for w in wholes for m in MARGINS])
    ours_, plain_ = np.asarray(ours, float), np.asarray(plain, float)

    def ratio(picked: np.ndarray) -> tuple[float, int]:
        (pairs, better, cost), others = ours_[picked].sum(axis=0), plain_[picked].sum(axis=0)
        quality = others[:, 1] / np.maximum(1, others[:, 0])
        level = min(better / pairs, quality[others[:, 0] >= len(picked)].max())
        rates = np.where((quality >= level) & (others[:, 0] >= len(picked)), others[:, 0] / others[:, 2], 0.0)
        return pairs / cost / rates.max(), int(rates.argmax())

    everyone = np.arange(len(concepts))
    found, best = ratio(everyone)
    rng = np.random.default_rng(0)
    drawn = [ratio(rng.choice(everyone, len(everyone)))[0] for _ in range(RESAMPLES if len(concepts) > 1 else 0)]
    pairs, better, cost = ours_.sum(axis=0)
    n, m = divmod(best, len(MARGINS))
    return {
        "chosen": {"drafts": count, "steps": steps, "margin": margin},
        "pairs": int(pairs),
        "better": better / pairs,
        "pairs_per_s": pairs / cost,
        "plain": f"plain {PLAIN[n]}, margin {MARGINS[m]:g}",
        "ratio": found,
        "ci95": [float(v) for v in np.quantile(drawn, (0.025, 0.975))] if drawn else [None, None],
    }


def correlations(concepts: list[Records], settings: PairSettings) -> dict[str, float]:
    """Mean correlation, within prompts, of the rule's reward at each look (predicted x0 or draft) with that of the
    finished picture.
    """
    from ...dpo_core.pairs.rules import reward_of

    looks = sorted({name.removeprefix("fidelity_") for name in concepts[0] if name.startswith("fidelity_")})

    def reward(one: Records, look: str) -> np.ndarray:
        found = reward_of(one["prompt"], one[f"fidelity{look}"], one[f"alignment{look}"], settings)
        if found is None:
            raise SystemExit(f"the rule {settings.rule} has no reward; lambda_harmonic and weighted_sum have.")
        return found

    return {
        look: float(np.mean([np.corrcoef(reward(one, f"_{look}"), reward(one, ""))[0, 1] for one in concepts]))
        for look in looks
    }


def figure(levels: list[dict], title: str):
    """Pairs per second by their quality, of the best plain way and of the best way with drafts."""
    from matplotlib.figure import Figure

    shown = Figure(figsize=(7, 4.4), layout="constrained")
    axes = shown.add_subplot()
    for kind, colour in (("plain", "#666666"), ("drafted", "#1f77b4")):
        points = [(f["quality"], f[kind]["pairs_per_s"]) for f in levels if f[kind]]
        axes.step(*zip(*points, strict=True), where="post", color=colour, linewidth=2, label=f"best {kind} way")
    axes.set_xlabel("required quality: least share of pairs with a right winner and a wrong loser")
    axes.set_ylabel("pairs per second")
    axes.set_title(title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return shown


def show_frontier(levels: list[dict], chosen: dict, about: str) -> None:
    def cells(way: dict | None) -> tuple[str, str]:
        return (f"{way['way']}, margin {way['margin']:g}", f"{way['pairs_per_s']:.2f}") if way else ("none", "")

    rows = []
    for level in levels:
        plain, drafts = level["plain"], level["drafted"]
        ratio = f"{drafts['pairs_per_s'] / plain['pairs_per_s']:.2f}" if plain and drafts else ""
        rows.append([f"{level['quality']:.2f}", *cells(plain), *cells(drafts), ratio])
    columns = ("better, at least", "best plain way", "pairs/s", "best way with drafts", "pairs/s", "ratio")
    print_table(about, columns, rows)
    low, high = chosen["ci95"]
    interval = "" if low is None else f" ({low:.2f} to {high:.2f}, 95 % over concepts)"
    print(
        f"chosen beforehand: {chosen['chosen']}: {chosen['pairs']} pairs, {chosen['better']:.3f} better, "
        f"{chosen['pairs_per_s']:.2f} per second; {chosen['ratio']:.2f}{interval} times the best plain way of at least "
        f"that quality, {chosen['plain']}"
    )
