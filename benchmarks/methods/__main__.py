"""Methods against each other on toybox concepts: the same start, prompts, seeds and compute, measured by reward, judge,
guards and oracle.

    python -m dreambooth_dpo.benchmarks.methods --concepts 5-14

    python -m dreambooth_dpo.benchmarks.methods --rows lambda_harmonic,nft --seeds 0,1,2

One row per method; rows that choose a beta (nft_b0.1, ...) or a rate (fast, ...), or that spend less (few_steps_4,
...), are run by name only. --seeds repeats the rows with other seeds of candidates and training, on the same start and
held-out pictures. --earlier takes the toybox's earlier settings, with which most tables of docs/quality.md were
measured. Concepts 0..4 chose the defaults; figures are from 5..14, and once from 15..24. Prints mean gains over
concepts with bootstrap intervals over concepts, and writes methods.json and methods.png. Cached results are used again.
"""

from __future__ import annotations

from pathlib import Path

from ..common.command import command_parser, parse_names, parse_numbers, write_result
from ..common.concepts import ALL_ROUNDS, by_concept
from ..common.estimates import estimate_text
from .cheaper import AGAIN, DISTILLED, MORE_ROUNDS
from .figure import methods_figure
from .gains import Results, difference, ends, kept_study, seed_study, stop_study, summarise, world_study
from .rows import CHEAPER, DEFAULT, FASTER, PLAIN, rows
from .runs import run_concept
from .tables import show_gains, show_kept, show_seeds, show_stops, show_world
from .tuning import TUNING

_EARLIER_OUT = "benchmark_methods"
"""Where results of the earlier settings are: those of the present ones must not be taken for them."""


def main() -> None:
    parser = command_parser(__doc__, "methods", "5-14", jobs=True)
    parser.add_argument("--rows", default="all", help="names of rows, separated by commas; default: all")
    about_long = "rounds of the rows lambda_harmonic and constant_rate, to study the stop rule, e.g. 10"
    parser.add_argument("--long", type=int, default=0, help=about_long)
    about_seeds = "training seeds of every row, e.g. 0,1,2 or 0-4; default: %(default)s"
    parser.add_argument("--seeds", type=parse_numbers, default="0", help=about_seeds)
    about_earlier = f"the toybox's settings as they were before 2026-12, in runs/{_EARLIER_OUT}"
    parser.add_argument("--earlier", action="store_true", help=about_earlier)
    args = parser.parse_args()
    if args.earlier and args.out == parser.get_default("out"):
        args.out = args.out.with_name(_EARLIER_OUT)
    if not args.seeds:
        parser.error("--seeds names no seed; write e.g. 0,1,2")
    every = [DEFAULT, "dreambooth", *(n for n in rows(ALL_ROUNDS) if n != DEFAULT)]
    left_out = (*TUNING, *CHEAPER, *AGAIN, *MORE_ROUNDS, *DISTILLED, *FASTER, *(PLAIN if args.earlier else ()))
    usual = [n for n in every if n not in left_out]
    names = usual if args.rows == "all" else parse_names(parser, args.rows, every, "row")
    found = by_concept(run_concept, args.concepts, args.jobs, args.out, names, args.long, args.seeds, args.earlier)
    report({seed: {c: kept[seed] for c, kept in found.items()} for seed in args.seeds}, names, args.out)


def report(seeded: dict[int, Results], names: list[str], out: Path) -> None:
    """Print the tables; write methods.json and methods.png. seeded: results by training seed; tables are of the first.

    With several seeds there is one more table, of gains over concepts and seeds.
    """
    results = next(iter(seeded.values()))
    shown = [n for n in names if n != "dreambooth"]
    if "dreambooth" in names:
        shown[1:1] = ["dreambooth_equal", "dreambooth_best"]
    summary, stops = {n: summarise(results, n) for n in shown}, stop_study(results)
    kept = kept_study(results, shown)
    show_gains(summary)
    show_kept(kept)
    if world := world_study(results, shown):
        show_world(world)
    if stops:
        show_stops(stops)
    data = {
        "summary": summary,
        "kept": kept,
        "stop_rule": stops,
        "world": world,
        "concepts": {str(k): v for k, v in results.items()},
    }
    if len(results) > 1:
        data["differences"] = {f"{shown[0]} - {n}": difference(results, shown[0], n) for n in shown[1:]}
        for name, found in data["differences"].items():
            print(f"{name}: all right, points {estimate_text(found, '+.1f', 100)}")
    if len(seeded) > 1:
        data["seeds"] = seed_study(seeded, [n for n in names if n != "dreambooth"])
        show_seeds(data["seeds"], list(seeded))
    methods_figure({n: ends(results, n) for n in shown}).savefig(out / "methods.png", dpi=110)
    write_result(out / "methods.json", data, "methods.png")


if __name__ == "__main__":
    main()
