"""Pair rules by the truth of their pairs, before training: how often winners are right and losers wrong.

    python -m dreambooth_dpo.benchmarks.rules --concepts 0-3

Every rule pairs the same candidates: those of the first round, drawn from each concept's personalized start. The lines
"pool ..." are the default rule on other candidates (LoRA strengths, the base model, the photos). Prints
means over concepts and writes rules.json. `benchmarks.methods` measures what training makes of the pairs; both commands
use the same run folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..dpo_core.pairs.rules import PAIR_RULES
from ..dpo_core.records import Pair
from ..dpo_core.settings import PairSettings
from .common.command import command_parser, write_result
from .common.concepts import EARLIER, by_concept, members, truth_of_candidates
from .common.tables import print_table

TRUTHS = ("all_right", "background", "body", "belly", "hat")
CHANGES: dict[str, dict] = {
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


def rule_settings(base: PairSettings) -> dict[str, PairSettings]:
    """The rules by name, some with a second setting; the default first."""
    return {name: base.model_copy(update=change) for name, change in CHANGES.items()}


def truth_of_pairs(pairs: Sequence[Pair], right: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Number of pairs and, for each truth, the share of right winners ("winners ...") and how much more often winners
    are right than losers ("gap ...").

    right: 0 or 1 per candidate, [n], by truth. Winners 1 1 0 over losers 0 1 0: winners 2/3, gap 1/3.
    """
    winners, losers = members(pairs)
    found = {"pairs": float(len(pairs))}
    for name, values in right.items():
        found[f"winners {name}"] = float(values[winners].mean()) if pairs else float("nan")
        found[f"gap {name}"] = float((values[winners] - values[losers]).mean()) if pairs else float("nan")
    return found


def run_concept(seed: int, out: Path) -> dict[str, dict[str, float]]:
    """{rule or pool: truth of its pairs} of the first round's candidates."""
    from .methods.rows import POOLS, rows
    from .methods.runs import first_round, row_candidates

    folder, table = out / f"concept_{seed}", rows(EARLIER)
    found = _truths(seed, first_round(seed, folder, EARLIER), rule_settings(EARLIER.pairs))
    for pool in POOLS:
        drawn = row_candidates(seed, folder, pool, table)
        found[f"pool {pool}"] = _truths(seed, drawn, {pool: EARLIER.pairs})[pool]
    return found


def _truths(seed: int, folder: Path, rules: Mapping[str, PairSettings]) -> dict[str, dict[str, float]]:
    """{rule: truth of its pairs} of the candidates of round 0 in a run folder.

    Pairs of the photos' own prompt count nowhere: it names no background, so the oracle has no truth for it.
    """
    from ..dpo_core.run.folder import RunFolder
    from ..toybox.concepts import concept_from_seed
    from ..toybox.models import oracle_scorers

    with RunFolder(folder) as run:
        drawn, toy = run.candidates("round_0"), concept_from_seed(seed)
        judged = [c.position for c in drawn if c.prompt != toy.to_concept().caption]
        prompt_of = np.asarray([c.prompt_index for c in drawn])
        oracles = [o for o in oracle_scorers(toy) if o.name.removeprefix("oracle_") in TRUTHS]
        truths = truth_of_candidates(run, "round_0", oracles, judged)
        right = {name: truths[f"oracle_{name}"] for name in TRUTHS}
        fidelity, alignment = (run.score_array("round_0", axis) for axis in ("fidelity", "alignment"))
    found = {}
    for name, rule in rules.items():
        pairs, _ = PAIR_RULES[rule.rule](prompt_of, fidelity, alignment, rule)
        known = [p for p in pairs if p.winner in set(judged)]
        found[name] = {**truth_of_pairs(known, right), "better": winners_better(known, right)}
    return found


def winners_better(pairs: Sequence[Pair], right: Mapping[str, np.ndarray]) -> float:
    """The share of pairs whose winner has more attributes right than its loser; all_right is no attribute.

    Attributes right 2, 1, 2 and pairs 0>1, 0>2: 1/2.
    """
    winners, losers = members(pairs)
    count = sum(values for name, values in right.items() if name != "all_right")
    return float((count[winners] > count[losers]).mean()) if pairs else float("nan")


def main() -> None:
    args = command_parser(__doc__, "benchmark_methods", "0-3", jobs=True).parse_args()
    results = by_concept(run_concept, args.concepts, args.jobs, args.out)
    every = list(results.values())
    means = {n: {k: float(np.nanmean([r[n][k] for r in every])) for k in every[0][n]} for n in every[0]}
    rows = []
    for name, found in means.items():
        cells = [f"{100 * found[f'{what} {t}']:.1f}" for what in ("winners", "gap") for t in TRUTHS]
        rows.append([name, f"{found['pairs']:.0f}", f"{100 * found['better']:.1f}", *cells])
    columns = ("rule", "pairs", "winner better", *(f"winners {t}" for t in TRUTHS), *(f"gap {t}" for t in TRUTHS))
    print_table("truth of the pairs, in per cent", columns, rows, 190)
    write_result(args.out / "rules.json", {"means": means, "concepts": {str(k): v for k, v in results.items()}})


if __name__ == "__main__":
    main()
