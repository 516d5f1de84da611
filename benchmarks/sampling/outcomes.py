"""Pairs per second of several ways to draw fewer candidates, computed from toybox candidates that were all drawn in
full (records.py). ways.py decides which candidates each way draws:

- plain n: n candidates per prompt;
- drafted: n drafts per prompt; those that stand in pairs, at a margin, are drawn in full;
- stopped: of n candidates half is stopped part-way, those that by the predicted x0 are the least likely to stand in a
  pair (`prospects`); or a random half, as the control;
- waves: half of n first, the rest only for prompts with too few pairs;
- until: four at a time, until a prompt has enough pairs of a margin.

Quality is the share of pairs whose winner is right by the oracle and whose loser is not ("better"), or the reverse
("worse"). A longer margin buys quality with pairs: "pairs/s at q" is the most pairs per second of any margin at which
at least a share q of the pairs is better. Pairs, shares and "at cap", the share of prompts with as many pairs as a
prompt may have, are those of the smallest margin. The cost of a picture is taken to be the same in every batch size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from ...dpo_core.pairs.rules import PAIR_RULES
from ...dpo_core.settings import PairSettings
from ..common.concepts import members
from ..common.tables import print_table
from .records import DRAFT_STEPS, STEPS_AT, Records, first_of
from .ways import drafted, stopped, until

DRAFT_MARGINS = (0.5, 1.0, 1.5)
MARGINS = tuple(i / 4 for i in range(2, 17))
"""Compared for quality. Unit: standard deviations, of the length or of the reward, whichever the rule compares."""
QUALITIES = (0.5, 0.6, 0.7, 0.8)
PLAIN = (3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20)
"""Candidates per prompt of the plain ways."""
UNTIL = ((3, 1.0), (3, 2.0), (6, 0.5), (6, 1.0), (6, 1.5), (6, 2.0), (6, 2.5))
"""(pairs, margin) that end the waves of four of a prompt."""


def outcome(records: Records, kept: np.ndarray, margin: float, settings: PairSettings) -> np.ndarray:
    """[pairs, better, worse, prompts at the limit of pairs] of the drawn candidates at a margin, int [4]."""
    right, prompt_of = records["right"][kept], records["prompt"][kept]
    pairs, _ = PAIR_RULES[settings.rule](
        prompt_of, records["fidelity"][kept], records["alignment"][kept], settings.model_copy(update={"margin": margin})
    )
    winners, losers = members(pairs)
    full = np.bincount(prompt_of[winners]) >= settings.max_pairs_per_prompt
    return np.asarray(
        [len(pairs), (right[winners] > right[losers]).sum(), (right[winners] < right[losers]).sum(), full.sum()]
    )


def row(name: str, concepts: list[Records], kept: list[np.ndarray], seconds: float, settings: PairSettings) -> dict:
    """Pairs, quality and pairs per second of one way over all concepts. kept: candidates drawn in full, by concept.
    seconds: cost of all its candidates.
    """
    found = [sum(outcome(r, k, margin, settings) for r, k in zip(concepts, kept, strict=True)) for margin in MARGINS]
    rates = {
        q: max((float(f[0] / seconds) for f in found if f[0] and f[1] >= q * f[0]), default=0.0) for q in QUALITIES
    }
    pairs, better, worse, full = (int(v) for v in found[0])
    return {
        "way": name,
        "seconds": seconds,
        "pictures": int(sum(k.sum() for k in kept)),
        "pairs": pairs,
        "better": better / max(1, pairs),
        "worse": worse / max(1, pairs),
        "at_cap": full / sum(len(np.unique(r["prompt"])) for r in concepts),
        "curve": [[m, int(f[0]), int(f[1])] for m, f in zip(MARGINS, found, strict=True)],
        "pairs_per_s": pairs / seconds,
        "pairs_per_s_at": {str(q): v for q, v in rates.items()},
    }


def ways(
    concepts: list[Records], seconds: dict[str, float], settings: PairSettings, steps: int
) -> Iterator[tuple[str, list[np.ndarray], float]]:
    """(name, candidates drawn in full of each concept, cost of all in seconds) of every way."""
    look, denoise = seconds["decode"] + seconds["score"], seconds["denoise"]

    def whole(name: str, kept: list[np.ndarray]) -> tuple[str, list[np.ndarray], float]:
        return name, kept, float(sum(k.sum() for k in kept) * (denoise + look))

    for n in PLAIN:
        yield whole(f"plain {n}", [first_of(r, n) for r in concepts])
    for enough, margin in UNTIL:
        bound = settings.model_copy(update={"margin": margin})
        yield whole(f"until {enough} of margin {margin:g}", [until(r, 4, enough, bound) for r in concepts])
    for n in PLAIN[5:]:
        for k, margin in itertools.product(DRAFT_STEPS, DRAFT_MARGINS):
            kept = [drafted(r, n, k, settings.model_copy(update={"margin": margin})) for r in concepts]
            begun = sum(first_of(r, n).sum() for r in concepts) * (seconds[f"draft_{k}"] + look)
            name, kept, cost = whole(f"{n} drafted in {k}, margin {margin:g}", kept)
            yield name, kept, float(begun + cost)
    for n in (10, 14, 20):
        for enough in (3, 6):
            yield whole(f"waves of {n}, {enough} enough", [until(r, n // 2, enough, settings, n) for r in concepts])
        for step in STEPS_AT:
            begun = sum(first_of(r, n).sum() for r in concepts) * (denoise * step / steps + look)
            for by_chance in (False, True):
                kept = [stopped(r, n, step, settings, by_chance) for r in concepts]
                cost = begun + sum(k.sum() for k in kept) * (denoise * (1 - step / steps) + look)
                yield f"{n}, half stopped at {step}{' by chance' * by_chance}", kept, float(cost)


def table(concepts: list[Records], seconds: dict[str, float], settings: PairSettings, steps: int = 12) -> list[dict]:
    """One row per way, with its ratios by quality to the plain way of the nearest cost and to the best plain way.

    The number of pairs of one way at a quality is noisy, and so is a ratio to it. The best plain way is less noisy.
    """
    rows = [row(name, concepts, kept, cost, settings) for name, kept, cost in ways(concepts, seconds, settings, steps)]
    plain = [r for r in rows if r["way"].startswith("plain")]
    best = {q: max(p["pairs_per_s_at"][q] for p in plain) for q in map(str, QUALITIES)}
    for one in rows:
        other = min(plain, key=lambda p, s=one["seconds"]: abs(p["seconds"] - s))
        at, base = one["pairs_per_s_at"], other["pairs_per_s_at"]
        one |= {"plain": other["way"], "ratios": {q: at[q] / base[q] if base[q] else None for q in at}}
        one["ratios_to_best"] = {q: at[q] / best[q] if best[q] else None for q in at}
    return rows


def show_ways(rows: list[dict], about: str) -> None:
    cells = []
    for r in rows:
        rates = []
        for q, rate in r["pairs_per_s_at"].items():
            ratios = ", ".join(f"{k[q]:.2f}" for k in (r["ratios"], r["ratios_to_best"]) if k[q] is not None)
            rates.append(f"{rate:.2f} ({ratios})" if ratios else f"{rate:.2f}")
        shares = (f"{r['at_cap']:.2f}", f"{r['better']:.3f}", f"{r['worse']:.3f}", f"{r['pairs_per_s']:.2f}")
        cells.append([r["way"], f"{r['seconds']:.0f}", str(r["pairs"]), *shares, *rates, r["plain"]])
    columns = ("way", "seconds", "pairs", "at cap", "better", "worse", "pairs/s")
    columns += (*(f"at {q} (ratios)" for q in QUALITIES), "plain way")
    title = f"{about}; ratios to the plain way of the nearest cost and to the best plain way"
    print_table(title, columns, cells, 170)
