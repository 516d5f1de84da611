"""Gains of the rows over concepts, and what the stop rule would have kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..common.concepts import ALL_ROUNDS, TRUTH
from ..common.estimates import mean_estimate, two_level_estimate
from .rows import DEFAULT, rows
from .variety import ABOVE_WORLD

MAIN = ("fidelity", "alignment", "judge_fidelity", "judge_alignment", TRUTH)
DETAILS = ("oracle_background", "oracle_body", "oracle_belly", "oracle_hat", "oracle_spread", "copy_paste")
DETAILS += ("diversity", "right_spread", "right_vendi", "judge_background")

Results = dict[int, dict[str, dict]]
"""{concept: {row: measures of runs.run_row or runs.run_dreambooth}}"""


def gain_of(measures: dict, score: str, at: int, part: str = "all", since: int = 0) -> float:
    """The gain since a round; NaN where the concept has no such measure."""
    values = measures["scores"][score][part]
    return float("nan") if None in (values[at], values[since]) else values[at] - values[since]


def ends(results: Results, name: str) -> dict[int, tuple[dict, int, int]]:
    """For each concept: (measures, index of the start, index of the end) of a row.

    dreambooth_equal ends at the loop's compute; dreambooth_best where the truth is highest after the start, which no
    user can know. Other rows end after their own number of rounds, however many were run.
    """
    found = {}
    for seed, kept in results.items():
        if name.startswith("dreambooth_") and "dreambooth" in kept:
            m = kept["dreambooth"]
            first, truth = m["steps"].index(m["start"]), m["scores"][TRUTH]["all"]
            best = first + int(np.argmax(truth[first:]))
            found[seed] = (m, first, len(truth) - 1 if name == "dreambooth_equal" else best)
        elif name in kept:
            rounds = rows(ALL_ROUNDS)[name].settings.rounds
            found[seed] = (kept[name], 0, min(rounds, len(kept[name]["rounds"]) - 1))
    return found


def _estimate(values: list[float]) -> dict:
    """NaN, where a concept has no such measure, is left out."""
    values = [v for v in values if not np.isnan(v)]
    return {**mean_estimate(values), "up": int(np.sum(np.asarray(values) > 0)), "concepts": len(values)}


def summarise(results: Results, name: str) -> dict:
    """Mean gains of a row over concepts with intervals: of all contexts, of those seen in training, of the unseen ones.

    Beside them: mean scores after the row, mean of the highest winner-error alarm ("winner_drift"), and seconds.
    """
    found = list(ends(results, name).values())
    scores = [s for s in (*MAIN, *DETAILS) if all(s in m["scores"] for m, *_ in found)]

    def gains(score: str, part: str) -> list[float]:
        return [gain_of(m, score, at, part, since) for m, since, at in found]

    table = {
        part: {s: _estimate(values) for s in scores if not np.isnan(values := gains(s, part)).all()}
        for part in ("all", "seen", "unseen")
    }
    after = {s: [v for m, _, at in found if (v := m["scores"][s]["all"][at]) is not None] for s in scores}
    drift = [max(m["winner_alarms"][:at], default=0.0) for m, _, at in found if "winner_alarms" in m]
    return {
        **table,
        "after": {s: float(np.mean(values)) for s, values in after.items() if values},
        "winner_drift": float(np.mean(drift)) if drift else None,
        "seconds": float(np.mean([m["seconds"] * at / max(1, len(m["rounds"]) - 1) for m, _, at in found])),
    }


def world_study(results: Results, names: Sequence[str]) -> dict[str, dict]:
    """By row: Vendi score of two right pictures less the world's at the "start" and the "end", and how many of the
    concepts end "below" the world's. Concepts without the measure are left out.
    """
    found = {}
    for name in names:
        runs = [
            (m["scores"].get(ABOVE_WORLD, {}).get("all"), since, at) for m, since, at in ends(results, name).values()
        ]
        known = [(v[since], v[at]) for v, since, at in runs if v and None not in (v[since], v[at])]
        if known:
            start, end = ([pair[i] for pair in known] for i in (0, 1))
            found[name] = {"start": mean_estimate(start), "end": mean_estimate(end), "below": sum(e < 0 for e in end)}
            found[name]["concepts"] = len(known)
    return found


def difference(results: Results, first: str, second: str, score: str = TRUTH, part: str = "all") -> dict:
    """Mean over concepts of gain(first) - gain(second), paired by concept, with its interval."""
    one, other = (
        {seed: gain_of(m, score, at, part, since) for seed, (m, since, at) in ends(results, name).items()}
        for name in (first, second)
    )
    return _estimate([one[seed] - other[seed] for seed in sorted(set(one) & set(other))])


def by_seed(seeded: Mapping[int, Results], name: str, score: str = TRUTH) -> np.ndarray:
    """Gains of a row by concept and training seed, float64 [concepts, seeds]; NaN where it was not run."""
    concepts = sorted({concept for results in seeded.values() for concept in results})
    found = np.full((len(concepts), len(seeded)), np.nan)
    for column, results in enumerate(seeded.values()):
        for concept, (m, since, at) in ends(results, name).items():
            found[concepts.index(concept), column] = gain_of(m, score, at, since=since)
    return found


def seed_study(seeded: Mapping[int, Results], names: Sequence[str]) -> dict[str, dict]:
    """Gains of the rows over concepts and training seeds, and the first row's less each other's, with intervals.

    Differences are paired by concept and seed, since both rows have the same candidates in the first round.
    "between_seeds": standard deviation of a concept's gain over its seeds (root of the mean variance over concepts).
    """
    gains = {name: by_seed(seeded, name) for name in names}
    first = names[0]
    return {
        "gains": {name: two_level_estimate(values) for name, values in gains.items()},
        "differences": {f"{first} - {n}": two_level_estimate(gains[first] - gains[n]) for n in names[1:]},
        "between_seeds": {name: deviation_of_seeds(values) for name, values in gains.items()},
    }


def deviation_of_seeds(gains: np.ndarray) -> float:
    """Root of the mean over concepts of the variance over seeds, of gains [concepts, seeds]; NaN: not run.

    Gains 1, 3 and 5, 5, 5: variances 2 and 0, so 1.
    """
    known = [row[~np.isnan(row)] for row in gains]
    variances = [row.var(ddof=1) for row in known if len(row) > 1]
    return float(np.sqrt(np.mean(variances))) if variances else float("nan")


def kept_study(results: Results, names: Sequence[str]) -> dict[str, dict]:
    """By row: gain in truth of the round that the stop rule would have kept, mean over concepts with its interval.

    "within_2_points" of the best of the rounds that were run, and "worse_than_start": numbers of concepts. Rows without
    a stop rule are left out.
    """
    found = {}
    for name in names:
        runs = [kept[name] for kept in results.values() if kept.get(name, {}).get("stop")]
        truths = [m["scores"][TRUTH]["all"] for m in runs]
        ends_at = [truth[m["stop"]["kept"]] for m, truth in zip(runs, truths, strict=True)]
        if runs:
            found[name] = {
                **_estimate([end - truth[0] for end, truth in zip(ends_at, truths, strict=True)]),
                "within_2_points": sum(end >= max(t) - 0.02 for end, t in zip(ends_at, truths, strict=True)),
                "worse_than_start": sum(end < t[0] for end, t in zip(ends_at, truths, strict=True)),
            }
    return found


def stop_study(results: Results) -> list[dict]:
    """For each concept with more rounds than the row's own: the round that the stop rule keeps, and its truth beside
    that of the start, of the best round and of the last one.

    Concepts with fewer rounds are left out: there the stop rule had nothing to end.
    """
    found, usual = [], rows(ALL_ROUNDS)[DEFAULT].settings.rounds
    for seed, kept in results.items():
        measures = kept.get(DEFAULT)
        if measures and (stop := measures.get("stop")) and len(measures["rounds"]) - 1 > usual:
            truth = measures["scores"][TRUTH]["all"]
            at, best = truth[stop["kept"]], max(truth)
            compared = {"start": truth[0], "truth": at, "best": best, "best_round": int(np.argmax(truth))}
            compared |= {"best_tried": max(truth[: stop["ended"] + 1]), "last": truth[-1]}
            verdict = {"within_2_points": at >= best - 0.02, "worse_than_start": at < truth[0]}
            found.append({"concept": seed, **stop, **compared, **verdict})
    return found
