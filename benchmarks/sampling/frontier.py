"""Pairs a second by their quality: the best plain way against the best drafted one, and one way of drafting that was
chosen before.
"""

from __future__ import annotations

import numpy as np

from ...dpo_core.settings import PairSettings
from .outcomes import MARGINS, PLAIN, outcome
from .ways import Records, drafted, first_of

CHOSEN = (16, 4, 1.0)
"""Drafts a prompt, their steps, and the margin of both pairings: chosen on concepts 0-3."""
LEVELS = tuple(round(0.5 + 0.02 * i, 2) for i in range(20))
"""Shares of better pairs."""
RESAMPLES = 2000


def frontier(rows: list[dict]) -> list[dict]:
    """At each level of quality that either reaches the quickest plain and the quickest drafted way: [{"quality",
    "plain", "drafted"}, ...].

    rows: those of `sampling_pairs.table`. A way is {"way", "margin", "pairs_per_s"}, or None where none reaches the
    level.
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
    """The chosen way of drafting against the quickest plain way of any number and margin whose pairs are as good: ratio
    of pairs a second.

    95 % by bootstrap over concepts; the plain way is chosen anew in each resample, which favours it. Where none is as
    good, that of the best quality stands in for it.
    """
    count, steps, margin = chosen
    denoise, look = seconds["denoise"], seconds["decode"] + seconds["score"]
    ours, plain = [], []
    for one in concepts:
        begun, kept = (
            first_of(one, count).sum(),
            drafted(one, count, steps, settings.model_copy(update={"margin": margin})),
        )
        cost = begun * (seconds[f"draft_{steps}"] + look) + kept.sum() * (denoise + look)
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
        "chosen": {"drafts": count, "steps": steps, "margin": margin}, "pairs": int(pairs), "better": better / pairs,
        "pairs_per_s": pairs / cost, "plain": f"plain {PLAIN[n]}, margin {MARGINS[m]:g}", "ratio": found,
        "ci95": [float(v) for v in np.quantile(drawn, (0.025, 0.975))] if drawn else [None, None],
    }  # fmt: skip


def correlations(concepts: list[Records], settings: PairSettings) -> dict[str, float]:
    """Mean correlation, within prompts, of the reward that the rule holds against the margin with that of the whole
    picture, by look.
    """
    from ...dpo_core.pairs.rules import reward_of

    looks = sorted({name.removeprefix("fidelity_") for name in concepts[0] if name.startswith("fidelity_")})

    def reward(one: Records, look: str) -> np.ndarray:
        found = reward_of(one["prompt"], one[f"fidelity{look}"], one[f"alignment{look}"], settings)
        if found is None:
            raise SystemExit(
                f"the rule {settings.rule} has no reward to correlate; lambda_harmonic and weighted_sum have."
            )
        return found

    return {
        look: float(np.mean([np.corrcoef(reward(one, f"_{look}"), reward(one, ""))[0, 1] for one in concepts]))
        for look in looks
    }


def figure(levels: list[dict], title: str):
    """Pairs a second by their quality, plain and drafted."""
    from matplotlib.figure import Figure

    shown = Figure(figsize=(7, 4.4), layout="constrained")
    axes = shown.add_subplot()
    for kind, colour in (("plain", "#666666"), ("drafted", "#1f77b4")):
        points = [(f["quality"], f[kind]["pairs_per_s"]) for f in levels if f[kind]]
        axes.step(*zip(*points, strict=True), where="post", color=colour, linewidth=2, label=f"best {kind} way")
    axes.set_xlabel("quality asked for: share of pairs with a right winner and a wrong loser, at least")
    axes.set_ylabel("pairs a second")
    axes.set_title(title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return shown
