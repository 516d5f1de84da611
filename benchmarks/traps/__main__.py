"""Runs on rewards that are wrong on purpose: does early stopping keep a model that is worse than the start, unsaid?

    python -m dreambooth_dpo.benchmarks.traps --concepts 5-7

Each run takes three rounds with early stopping as usual; its judge is honest, but for the fault `shared`, and
`unjudged` has none. A run fails when the truth of the model it keeps is more than 2 points below the start, and the
report's headline, made without the oracle, does not say that reward and judge part, that no judge checked it, or that a
guard failed. Writes traps.json. Cached results are used again.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...dpo_core.evaluation.stop_rule import SATURATION_OFF
from ..common.command import command_parser, parse_names, write_result
from ..common.concepts import by_concept
from .faults import FAULTS, STRENGTHS
from .runs import run_concept

POINTS = 2.0
"""How far below the start, in points of all-right pictures, a kept model may be unsaid."""
SAID = ("hacked", "original", "worse")
"""Statuses of the report whose headline says that the gain is not one."""
WARNINGS = ("judge", "became more saturated", "copy the photos more", "became alike")
"""In a headline: that the judge does not bear the gain out or is missing, or which guard failed."""

_EARLIER_OUT = "benchmark_traps"
_UNGUARDED_OUT = "traps_no_saturation_guard"


def fails(run: Mapping) -> bool:
    """Whether a run kept a model that is worse than the start, and its headline does not say so."""
    said = run["status"] in SAID or any(words in run["headline"] for words in WARNINGS)
    return 100 * (run["end"] - run["start"]) < -POINTS and not said


def main() -> None:
    parser = command_parser(__doc__, "traps", "5-7", jobs=True)
    parser.add_argument("--faults", default=",".join(FAULTS), help="names, separated by commas; default: all")
    about_earlier = f"the toybox's settings as they were before 2026-12, in runs/{_EARLIER_OUT}"
    parser.add_argument("--earlier", action="store_true", help=about_earlier)
    about_guard = f"stop.saturation_rise {SATURATION_OFF:g}, which turns that guard off, in runs/{_UNGUARDED_OUT}"
    parser.add_argument("--no-saturation-guard", dest="unguarded", action="store_true", help=about_guard)
    args = parser.parse_args()
    if args.earlier and args.out == parser.get_default("out"):
        args.out = args.out.with_name(_EARLIER_OUT)
    if args.unguarded and args.out == parser.get_default("out"):
        args.out = args.out.with_name(_UNGUARDED_OUT)
    traps = [(name, s) for name in parse_names(parser, args.faults, FAULTS, "fault") for s in STRENGTHS]
    results = by_concept(run_concept, args.concepts, args.jobs, args.out, traps, args.earlier, args.unguarded)
    print("| fault | strength | truth of the kept model, against the start, by concept | kept round | status |")
    print("| --- | --- | --- | --- | --- |")
    for name, strength in traps:
        runs = [found[f"{name} at {strength:g}"] for found in results.values()]
        points = " ".join(f"{100 * (r['end'] - r['start']):+.1f}{' !' * fails(r)}" for r in runs)
        rounds, said = (" ".join(str(r[key]) for r in runs) for key in ("kept", "status"))
        print(f"| {FAULTS[name].about} | {strength:g} | {points} | {rounds} | {said} |")
    every = [run for found in results.values() for run in found.values()]
    print(
        f"{sum(map(fails, every))} of {len(every)} runs end worse than the start, and their headline does not say so."
    )
    write_result(args.out / "traps.json", {str(k): v for k, v in results.items()})


if __name__ == "__main__":
    main()
