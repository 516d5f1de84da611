"""Drafted candidates in the whole loop, beside plain ones: seconds, pairs and their quality, and the trained model.

    python -m dreambooth_dpo.benchmarks.drafts --concepts 5-14 --out runs/benchmark_drafts

Every variant runs all rounds of the toybox's settings with the same start, prompts and seeds. The variants differ in
the number of candidates, in drafts and in the pairs' margin. Drawing is sampling and scoring, drafts included. Quality
is the share of pairs whose winner is right by the oracle and whose loser is not. Truth is the gain in right held-out
pictures. Intervals are bootstraps over concepts. Cached results are used again. Writes drafts.json.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..dpo_core.settings import LoopSettings
from ..dpo_core.statistics import by_prompt
from .common.clock import Clock
from .common.command import command_parser, parse_names, write_result
from .common.concepts import EARLIER, TRUTH, cached, changed, members, truth_of_candidates
from .common.estimates import estimate_text, mean_estimate
from .common.tables import print_table

DEFAULT, PEER, DRAFTS = "plain 10", "plain 16, margin 1", "drafts 16, margin 1"
VARIANTS: dict[str, dict[str, dict]] = {
    DEFAULT: {},
    "plain 16": {"sampling": {"candidates_per_prompt": 16}},
    PEER: {"sampling": {"candidates_per_prompt": 16}, "pairs": {"margin": 1.0}},
    DRAFTS: {"sampling": {"candidates_per_prompt": 16, "draft_steps": 4}, "pairs": {"margin": 1.0}},
    "drafts 10": {"sampling": {"draft_steps": 4}},
}
"""Changed settings, by name."""
MEASURES = (TRUTH, "fidelity", "alignment", "judge_fidelity", "judge_alignment")


def settings_of(name: str) -> LoopSettings:
    return changed(EARLIER, **VARIANTS[name], evaluation={"every_round": False})


def run_variant(seed: int, name: str, folder: Path) -> dict:
    """{"seconds": by phase, "pairs", "better" (pairs), "drawn", "told" (by round), "gain": by measure} of one variant
    on one concept.
    """
    from ..toybox.concepts import concept_from_seed
    from ..toybox.run import start_of, toy_loop

    toy, settings = concept_from_seed(seed), settings_of(name)
    loop = toy_loop(toy, folder / name, start_of(toy, folder / "start"), settings, resume=True)
    clock = Clock("cpu", ("candidates", "pair", "train"))
    with clock.timing(loop, {phase: phase for phase in clock.seconds}):
        done = loop.go()
    found = {"seconds": clock.seconds, "rounds": done, **quality(loop, done)}
    found["told"] = [loop.run.fact(f"told_round_{r}") for r in range(done)]
    prompt_of = np.asarray([c.prompt_index for c in loop.run.candidates("evaluation_0")])

    def mean(number: int, measure: str) -> float:
        return float(by_prompt(loop.run.score_array(f"evaluation_{number}", measure), prompt_of).mean())

    found["gain"] = {m: mean(done, m) - mean(0, m) for m in MEASURES}
    loop.run.close()
    return found


def quality(loop, rounds: int) -> dict:
    """Pairs of all rounds, better pairs by the oracle, and pictures drawn in full."""
    oracles = [s for s in loop.judges if s.name == TRUTH]
    counts = {"pairs": 0, "better": 0, "drawn": 0}
    for name in (f"round_{r}" for r in range(rounds)):
        right = truth_of_candidates(loop.run, name, oracles)[TRUTH]
        winners, losers = members(loop.run.pairs(name))
        counts["pairs"] += len(winners)
        counts["better"] += int((right[winners] > right[losers]).sum())
        counts["drawn"] += len(right)
    return counts


def rate(found: dict) -> float:
    """Pairs per second of drawing."""
    return found["pairs"] / found["seconds"]["candidates"]


def summary(results: dict[int, dict[str, dict]]) -> dict[str, dict]:
    """By variant: means over concepts, and ratios and differences to the default and to the plain variant of the same
    rule ("peer"), with intervals.
    """
    table = {}
    for name in next(iter(results.values())):
        rows = [found[name] for found in results.values()]
        one = {
            "seconds": {p: float(np.mean([r["seconds"][p] for r in rows])) for p in rows[0]["seconds"]},
            "pairs": float(np.mean([r["pairs"] for r in rows])),
            "drawn": float(np.mean([r["drawn"] for r in rows])),
            "better": sum(r["better"] for r in rows) / sum(r["pairs"] for r in rows),
            "pairs_per_s": sum(r["pairs"] for r in rows) / sum(r["seconds"]["candidates"] for r in rows),
            "gain": {m: mean_estimate([r["gain"][m] for r in rows]) for m in MEASURES},
        }
        for title, other in (("default", DEFAULT), ("peer", PEER)):
            if other != name and all(other in found for found in results.values()):
                both = [(found[name], found[other]) for found in results.values()]
                ratios = [rate(a) / rate(b) for a, b in both]
                truth = [a["gain"][TRUTH] - b["gain"][TRUTH] for a, b in both]
                one[f"to_{title}"] = {"rate": mean_estimate(ratios), "truth": mean_estimate(truth)}
        table[name] = one
    return table


def show(table: dict[str, dict], concepts: list[int]) -> None:
    rows = []
    for name, row in table.items():
        compared = [row.get(key) for key in ("to_default", "to_peer")]
        rates = [estimate_text(c["rate"], ".2f") if c else "1" for c in compared]
        truths = [estimate_text(c["truth"], "+.1f", 100) if c else "" for c in compared]
        whole = (row["seconds"]["candidates"], row["seconds"]["train"], row["drawn"], row["pairs"])
        cells = [*(f"{value:.0f}" for value in whole), f"{row['better']:.3f}", f"{row['pairs_per_s']:.2f}", *rates]
        rows.append([name, *cells, estimate_text(row["gain"][TRUTH], "+.1f", 100), *truths])
    columns = ("variant", "drawing s", "training s", "in full", "pairs", "better", "pairs/s")
    columns += ("x default", f"x {PEER}", "all right", "minus default", f"minus {PEER}")
    title = f"all rounds, concepts {', '.join(map(str, concepts))}; means, 95 % over concepts"
    print_table(title, columns, rows, 200)


def main() -> None:
    parser = command_parser(__doc__, "benchmark_drafts", "5-7")
    about = "names separated by semicolons; default: all"
    parser.add_argument("--variants", default=";".join(VARIANTS), help=about)
    args = parser.parse_args()
    names = parse_names(parser, args.variants, VARIANTS, "variant", ";")
    results: dict[int, dict[str, dict]] = {}
    for seed in args.concepts:  # one after the other: drawing is timed
        folder, results[seed] = args.out / f"concept_{seed}", {}
        for name in names:
            kept = folder / f"{name}.json"
            results[seed][name] = cached(kept, lambda s=seed, n=name, f=folder: run_variant(s, n, f))
        print(f"concept {seed}: done", flush=True)
    table = summary(results)
    show(table, args.concepts)
    write_result(args.out / "drafts.json", {"concepts": args.concepts, "summary": table, "by_concept": results})


if __name__ == "__main__":
    main()
