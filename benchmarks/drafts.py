"""Drafted candidates in the whole loop, beside plain ones: seconds, pairs and their quality, and what the model learns
from them.

    python -m dreambooth_dpo.benchmarks.drafts --concepts 5-14 --out runs/benchmark_drafts

Every variant runs the rounds of the toybox's settings from the same start, prompts and seeds; its candidates, their
number, drafts and the pairs' margin alone are others. Drawing is the time until a round's candidates are scored, drafts
included. Quality is the share of pairs whose winner is right by the oracle and whose loser is not. Truth is the gain in
right held-out pictures, with the same seeds before and after. Intervals are of the bootstrap over concepts. Kept
results are not made again. Writes drafts.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..dpo_core.run.files import write_json
from ..dpo_core.settings import LoopSettings, StopSettings
from ..dpo_core.statistics import bootstrap_interval, by_prompt
from .common.clock import Clock
from .concepts import parse_numbers

TRUTH = "oracle_all_right"
DEFAULT, PEER, DRAFTS = "plain 10", "plain 16, margin 1", "drafts 16, margin 1"
VARIANTS: dict[str, tuple[dict, dict]] = {
    DEFAULT: ({}, {}),
    "plain 16": ({"candidates_per_prompt": 16}, {}),
    PEER: ({"candidates_per_prompt": 16}, {"margin": 1.0}),
    DRAFTS: ({"candidates_per_prompt": 16, "draft_steps": 4}, {"margin": 1.0}),
    "drafts 10": ({"draft_steps": 4}, {}),
}
"""Changes of sampling and of pairs, by name."""
MEASURES = ("oracle_all_right", "fidelity", "alignment", "judge_fidelity", "judge_alignment")


def settings_of(name: str) -> LoopSettings:
    """The toybox's, all rounds and no stop rule, with a variant's changes."""
    from ..toybox.defaults import TOY_SETTINGS as base

    sampling, pairs = VARIANTS[name]
    return base.model_copy(
        update={
            "sampling": base.sampling.model_copy(update=sampling),
            "pairs": base.pairs.model_copy(update=pairs),
            "evaluation": base.evaluation.model_copy(update={"every_round": False}),
            "stop": StopSettings(rule="last"),
        }
    )


def run_variant(seed: int, name: str, out: Path) -> dict:
    """{"seconds": by phase, "pairs", "better" (pairs), "drawn", "told" (by round), "gain": by measure} of one variant
    on one concept.
    """
    from ..toybox.concepts import concept_from_seed
    from ..toybox.run import start_of, toy_loop

    folder = out / f"concept_{seed}"
    kept = folder / f"{name}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    toy, settings = concept_from_seed(seed), settings_of(name)
    loop = toy_loop(toy, folder / name, start_of(toy, folder / "start"), settings, resume=True)
    clock = Clock("cpu", ("candidates", "pair", "train"))
    for phase in clock.seconds:
        setattr_frozen(loop, phase, clock.wrapped(phase, getattr(loop, phase)))
    done = loop.go()
    found = {"seconds": clock.seconds, "rounds": done, **quality(loop, done)}
    found["told"] = [loop.run.fact(f"told_round_{r}") for r in range(done)]
    prompt_of = np.asarray([c.prompt_index for c in loop.run.candidates("evaluation_0")])
    means = {
        m: [by_prompt(loop.run.score_array(f"evaluation_{k}", m), prompt_of).mean() for k in (0, done)]
        for m in MEASURES
    }
    found["gain"] = {m: float(after - before) for m, (before, after) in means.items()}
    loop.run.close()
    write_json(kept, found)
    return found


def setattr_frozen(owner: object, name: str, call: Callable) -> None:
    """Loop is a frozen dataclass; an instance's own method stands before its class's."""
    object.__setattr__(owner, name, call)


def quality(loop, rounds: int) -> dict:
    """How many pairs all rounds have, and how many are better by the oracle; how many pictures were drawn in full."""
    oracle = next(s for s in loop.judges if s.name == TRUTH)
    counts = {"pairs": 0, "better": 0, "drawn": 0}
    for name in (f"round_{r}" for r in range(rounds)):
        drawn, pairs = loop.run.candidates(name), loop.run.pairs(name)
        right = oracle.score(loop.run.images(name), [c.prompt for c in drawn])
        counts["pairs"] += len(pairs)
        counts["better"] += sum(bool(right[p.winner] > right[p.loser]) for p in pairs)
        counts["drawn"] += len(drawn)
    return counts


def rate(found: dict) -> float:
    """Pairs a second of drawing."""
    return found["pairs"] / found["seconds"]["candidates"]


def interval(values: list[float]) -> list[float | None]:
    return list(bootstrap_interval(np.asarray(values), 10_000)) if len(values) > 1 else [None, None]


def summary(results: dict[int, dict[str, dict]]) -> dict[str, dict]:
    """By variant: sums and means over concepts, and ratios and differences to the default and to the peer of equal
    rule, with intervals.
    """
    table = {}
    for name in next(iter(results.values())):
        rows = [results[seed][name] for seed in results]
        gains = {m: [r["gain"][m] for r in rows] for m in MEASURES}
        one = {
            "seconds": {p: float(np.mean([r["seconds"][p] for r in rows])) for p in rows[0]["seconds"]},
            "pairs": float(np.mean([r["pairs"] for r in rows])), "drawn": float(np.mean([r["drawn"] for r in rows])),
            "better": sum(r["better"] for r in rows) / sum(r["pairs"] for r in rows),
            "pairs_per_s": sum(r["pairs"] for r in rows) / sum(r["seconds"]["candidates"] for r in rows),
            "gain": {m: {"mean": float(np.mean(v)), "ci95": interval(v)} for m, v in gains.items()},
        }  # fmt: skip
        for title, other in (("default", DEFAULT), ("peer", PEER)):
            if other in results[next(iter(results))] and other != name:
                peers = [results[seed][other] for seed in results]
                ratios = [rate(a) / rate(b) for a, b in zip(rows, peers, strict=True)]
                truth = [a["gain"][TRUTH] - b["gain"][TRUTH] for a, b in zip(rows, peers, strict=True)]
                found = {"rate": float(np.mean(ratios)), "truth": float(np.mean(truth))}
                one[f"to_{title}"] = {**found, "rate_ci95": interval(ratios), "truth_ci95": interval(truth)}
        table[name] = one
    return table


def show(table: dict[str, dict], concepts: str) -> None:
    from rich.console import Console
    from rich.table import Table

    def told(mean: float, ci: list[float | None], form: str) -> str:
        return f"{mean:{form}}" + (f" ({ci[0]:{form}}..{ci[1]:{form}})" if ci[0] is not None else "")

    compared = ("x default", f"x {PEER}", "all right", "minus default", f"minus {PEER}")
    title = f"three rounds, concepts {concepts}; means, 95 % over concepts"
    shown = Table("variant", "drawing s", "training s", "in full", "pairs", "better", "pairs/s", *compared, title=title)
    for name, row in table.items():
        compared = [row.get(key) for key in ("to_default", "to_peer")]
        rates = [told(c["rate"], c["rate_ci95"], ".2f") if c else "1" for c in compared]
        truths = [
            told(100 * c["truth"], [v and 100 * v for v in c["truth_ci95"]], "+.1f") if c else "" for c in compared
        ]
        truth = row["gain"][TRUTH]
        shown.add_row(
            name, f"{row['seconds']['candidates']:.0f}", f"{row['seconds']['train']:.0f}", f"{row['drawn']:.0f}", f"{row['pairs']:.0f}",
            f"{row['better']:.3f}", f"{row['pairs_per_s']:.2f}", *rates,
            told(100 * truth["mean"], [v and 100 * v for v in truth["ci95"]], "+.1f"), *truths,
        )  # fmt: skip
    Console(width=200).print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", default="5-7", help="0-3 chose drafts' number, steps and margin; 5-14 did not")
    parser.add_argument("--variants", default=";".join(VARIANTS), help="semicolons between")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_drafts"))
    args = parser.parse_args()
    names = args.variants.split(";")
    if unknown := [n for n in names if n not in VARIANTS]:
        parser.error(f"no variant {unknown[0]!r}; variants are {'; '.join(VARIANTS)}")
    results: dict[int, dict[str, dict]] = {}
    for seed in parse_numbers(args.concepts):
        results[seed] = {name: run_variant(seed, name, args.out) for name in names}
        print(f"concept {seed} done", flush=True)
    table = summary(results)
    show(table, args.concepts)
    write_json(args.out / "drafts.json", {"concepts": list(results), "summary": table, "by_concept": results})
    print(f"wrote {args.out / 'drafts.json'}")


if __name__ == "__main__":
    main()
