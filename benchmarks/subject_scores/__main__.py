"""Fidelity without masks: which scorer orders the candidates of a prompt as the oracle does.

    python -m dreambooth_dpo.benchmarks.subject_scores --concepts 0-3

Scores the same candidates by the whole picture, by patches, and with masks given, against photos on one background and
on several. They are the first round's, drawn from each concept's personalized start, whose photos are on one
background. Prints Spearman's rank correlation within a prompt, as mean over the prompts of all concepts with a 95 %
bootstrap interval, and writes subject_scores.json. `benchmarks.methods` measures what training makes of the scores; its
rows no_masks_... begin from the same folders.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...dpo_core.statistics import bootstrap_interval
from ..common.command import command_parser, write_result
from ..common.concepts import by_concept
from ..common.tables import print_table
from .agreement import PHOTOS, TRUTHS, run_concept

RESAMPLES = 2000


def summary(results: Mapping[int, dict]) -> dict:
    """{photos: {way: {truth: {"mean", "low", "high", "prompts"}}}} over the prompts of all concepts."""
    first = next(iter(results.values()))
    found: dict = {}
    for photos in PHOTOS:
        found[photos] = {}
        for way in first[photos]:
            of = {t: [v for r in results.values() for v in r[photos][way][t]] for t in TRUTHS}
            found[photos][way] = {name: _estimate(values) for name, values in of.items()}
    return found


def _estimate(values: list[float]) -> dict:
    low, high = bootstrap_interval(np.asarray(values), RESAMPLES)
    return {"mean": float(np.mean(values)) if values else None, "low": low, "high": high, "prompts": len(values)}


def _cell(found: Mapping) -> str:
    return "-" if found["mean"] is None else f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def main() -> None:
    parser = command_parser(__doc__, "benchmark_methods", "0-3", jobs=True)
    about = "further sharpnesses of the recurrence, e.g. 0.02,0.05,0.1 (cosine)"
    parser.add_argument("--sharpness", default="", help=about)
    args = parser.parse_args()
    sharpness = [float(v) for v in filter(None, args.sharpness.split(","))]
    results = by_concept(run_concept, args.concepts, args.jobs, args.out, sharpness)
    found = summary(results)
    for photos, ways in found.items():
        rows = [[way, *(_cell(of[t]) for t in TRUTHS)] for way, of in ways.items()]
        counts = (f"{t} ({next(iter(ways.values()))[t]['prompts']} prompts)" for t in TRUTHS)
        print_table(f"rank correlation within a prompt, photos on {photos}", ("scorer", *counts), rows)
    concepts = {str(k): v for k, v in results.items()}
    write_result(args.out / "subject_scores.json", {"summary": found, "concepts": concepts})


if __name__ == "__main__":
    main()
