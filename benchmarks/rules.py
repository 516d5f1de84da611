"""Pair rules by the truth of their pairs: how often winners are right, and losers wrong, before anything is trained.

    python -m dreambooth_dpo.benchmarks.rules --concepts 0-3

Every rule pairs the same candidates: those of the first round, drawn from each concept's personalized start. Prints a
table of means over concepts and writes rules.json. What training makes of the pairs is measured by
`benchmarks.methods`, whose folders this reads and fills.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..dpo_core.pairs.rules import PAIR_RULES
from ..dpo_core.records import Pair
from ..dpo_core.run.files import write_json
from ..dpo_core.settings import PairSettings
from .concepts import parse_numbers

TRUTHS = ("all_right", "background", "body", "belly", "hat")


def rule_settings(base: PairSettings) -> dict[str, PairSettings]:
    """The rules, and the default's neighbours."""
    changes: dict[str, dict] = {
        "lambda_harmonic": {"rule": "lambda_harmonic"},
        "lambda_harmonic, margin 1.5": {"rule": "lambda_harmonic", "margin": 1.5},
        "weighted_sum": {"rule": "weighted_sum"},
        "weighted_sum, fidelity 0.35": {"rule": "weighted_sum", "fidelity_weight": 0.35},
        "angle_window 20..70": {"rule": "angle_window"},
        "angle_window 0..90": {"rule": "angle_window", "angle_low": 0.0, "angle_high": 90.0},
        "angle_window 40..90": {"rule": "angle_window", "angle_low": 40.0, "angle_high": 90.0},
        "pareto": {"rule": "pareto"},
        "random": {"rule": "random"},
    }
    return {name: base.model_copy(update=change) for name, change in changes.items()}


def truth_of_pairs(pairs: Sequence[Pair], right: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Number of pairs, share of right winners, and how much more often winners are right than losers, for each truth.

    right: of each truth 0 or 1 by candidate, [n]. Winners 1 1 0 over losers 0 1 0: winners right 2/3, more often by
    1/3.
    """
    winners, losers = [p.winner for p in pairs], [p.loser for p in pairs]
    found = {"pairs": float(len(pairs))}
    for name, values in right.items():
        found[f"winners {name}"] = float(values[winners].mean()) if pairs else float("nan")
        found[f"gap {name}"] = float((values[winners] - values[losers]).mean()) if pairs else float("nan")
    return found


def run_concept(seed: int, out: Path) -> dict[str, dict[str, float]]:
    """{rule: measures of its pairs} on the first round's candidates."""
    from ..dpo_core.run.folder import RunFolder
    from ..toybox.concepts import concept_from_seed
    from ..toybox.models import oracle_scorers
    from .methods.__main__ import _settings
    from .methods.runs import first_round

    settings = _settings()
    with RunFolder(first_round(seed, out / f"concept_{seed}", settings)) as run:
        drawn = run.candidates("round_0")
        prompts, prompt_of = [c.prompt for c in drawn], np.asarray([c.prompt_index for c in drawn])
        pictures = run.images("round_0")
        oracle = {o.name.removeprefix("oracle_"): o for o in oracle_scorers(concept_from_seed(seed))}
        right = {name: oracle[name].score(pictures, prompts) for name in TRUTHS}
        fidelity, alignment = (run.score_array("round_0", axis) for axis in ("fidelity", "alignment"))
    found = {}
    for name, rule in rule_settings(settings.pairs).items():
        pairs, _ = PAIR_RULES[rule.rule](prompt_of, fidelity, alignment, rule)
        found[name] = truth_of_pairs(pairs, right)
    return found


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", default="0-3")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_methods"))
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    results = {seed: run_concept(seed, args.out) for seed in parse_numbers(args.concepts)}
    names = list(next(iter(results.values())))
    means = {
        n: {k: float(np.nanmean([r[n][k] for r in results.values()])) for k in results[min(results)][n]} for n in names
    }
    table = Table(
        "rule",
        "pairs",
        *(f"winners {t}" for t in TRUTHS),
        *(f"gap {t}" for t in TRUTHS),
        title="truth of the pairs, in per cent",
    )
    for name, found in means.items():
        cells = [f"{100 * found[f'{what} {t}']:.1f}" for what in ("winners", "gap") for t in TRUTHS]
        table.add_row(name, f"{found['pairs']:.0f}", *cells)
    Console(width=190).print(table)
    write_json(args.out / "rules.json", {"means": means, "concepts": {str(k): v for k, v in results.items()}})
    print(f"wrote {args.out / 'rules.json'}")


if __name__ == "__main__":
    main()
