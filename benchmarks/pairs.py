"""Cost of pair building: seconds and memory of every rule, and the share of scoring and pairing in a round.

    python -m dreambooth_dpo.benchmarks.pairs --out runs/benchmark_pairs

Scores are random, 10 candidates per prompt. Seconds are CPU seconds of one thread. Memory is the peak that Python and
NumPy allocate while a rule runs. The round is one of the toybox with a fresh adapter (personalization does not change
the cost), each stage timed apart. Prints tables, writes pairs.json and pairs.png.
"""

from __future__ import annotations

import tempfile
import tracemalloc

import numpy as np
import torch

from ..dpo_core.pairs.rules import PAIR_RULES
from ..dpo_core.settings import LoopSettings, PairSettings
from .common.clock import median_seconds
from .common.command import command_parser, write_result
from .common.concepts import EARLIER
from .common.estimates import power_law
from .common.tables import print_table

SECONDS, BYTES, SHARE = 5.0, 2**30, 0.05
"""Limits: of a rule for 10,000 candidates of 1,000 prompts, and of scoring and pairing together in a round."""
SIZES = (500, 1000, 2000, 5000, 10_000, 20_000)
PER_PROMPT = (5, 10, 20, 40, 80, 160)
PROMPTS_GROWN = 20
FULL_ROUND = 2000
"""Candidates of the round with the limited share."""


def scored(prompts: int, per_prompt: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """prompt_of int [n], fidelity and alignment float [n] in -1..1, n = prompts * per_prompt; the axes are correlated
    negatively.
    """
    rng = np.random.default_rng(seed)
    prompt_of = np.repeat(np.arange(prompts), per_prompt)
    plain = (
        rng.multivariate_normal([0.0, 0.0], [[1.0, -0.3], [-0.3, 1.0]], len(prompt_of))
        + rng.normal(size=(prompts, 2))[prompt_of]
    )
    return prompt_of, *(0.3 * np.tanh(plain)).T


def rule_cost(rule: str, prompts: int, per_prompt: int, times: int = 3) -> dict:
    """Median seconds, peak bytes and pairs of one rule on `scored` candidates."""
    data, settings = scored(prompts, per_prompt), PairSettings(rule=rule)
    seconds = median_seconds(lambda: PAIR_RULES[rule](*data, settings), times)
    tracemalloc.start()
    pairs, _ = PAIR_RULES[rule](*data, settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "rule": rule,
        "candidates": len(data[0]),
        "prompts": prompts,
        "seconds": seconds,
        "peak_bytes": peak,
        "pairs": len(pairs),
    }


def growth(rule: str, times: int = 3) -> dict:
    """Seconds against the number of prompts (10 candidates each) and against the candidates per prompt (20 prompts),
    with fitted exponents: 1 is linear, 2 quadratic.
    """
    found = {}
    grown = {
        "more_prompts": [(n // 10, 10) for n in SIZES],
        "more_per_prompt": [(PROMPTS_GROWN, k) for k in PER_PROMPT],
    }
    for name, shapes in grown.items():
        sizes, seconds = [p * k for p, k in shapes], []
        for shape in shapes:
            data, settings = scored(*shape), PairSettings(rule=rule)
            seconds.append(median_seconds(lambda d=data, s=settings: PAIR_RULES[rule](*d, s), times))
        found[name] = {"candidates": sizes, "seconds": seconds, "exponent": power_law(sizes, seconds)[0]}
    return found


def round_shares(candidates: int, settings: LoopSettings | None = None) -> dict:
    """Seconds of each stage of a toybox round with about `candidates` candidates, and the share of scoring and pairing
    in their sum.
    """
    from ..dpo_core.backends.diffusers.model import DiffusersTextToImage
    from ..dpo_core.loop.rounds import Loop
    from ..dpo_core.run.folder import RunFolder
    from ..dpo_core.sampling.sets import sample_set
    from ..dpo_core.scoring.sets import score_set
    from ..dpo_core.training.adapter import Adapter, drawing
    from ..toybox.concepts import concept_from_seed
    from ..toybox.run import toy_pipeline, toy_prompts, toy_scorers

    settings, toy = settings or EARLIER, concept_from_seed(5)
    prompts, scorers = toy_prompts(toy), toy_scorers(toy)
    each = max(2, round(candidates / len(prompts.train)))
    model, sampling, seconds = DiffusersTextToImage(toy_pipeline()), settings.sampling, {}
    adapter = Adapter(model.denoiser, settings.adapter, seed=0)
    with tempfile.TemporaryDirectory() as folder, RunFolder(folder) as run:
        loop = Loop(run, model, adapter, prompts, scorers.rewards, [], settings)

        def sample() -> None:
            with drawing(model, adapter):
                sample_set(run, "round_0", model, prompts.train, each, sampling, sampling.seed, 0)

        stages = {
            "sample": sample,
            "score": lambda: score_set(run, "round_0", scorers.rewards),
            "pairs": lambda: loop.pair(0),
            "train": lambda: loop.train(0),
        }
        for name, stage in stages.items():
            seconds[name] = median_seconds(stage, 1)
        count = len(run.candidates("round_0"))
    share = (seconds["score"] + seconds["pairs"]) / sum(seconds.values())
    return {"candidates": count, "seconds": seconds, "share_of_scoring_and_pairs": share}


def show(found: dict) -> None:
    rows = []
    for row in found["rules"]:
        grown = [f"{found['growth'][row['rule']][k]['exponent']:.2f}" for k in ("more_prompts", "more_per_prompt")]
        cells = (f"{row['seconds']:.3f}", f"{row['peak_bytes'] / 2**20:.1f}", str(row["pairs"]))
        rows.append([row["rule"], *cells, *grown])
    first = found["rules"][0]
    title = f"{first['candidates']} candidates of {first['prompts']} prompts"
    columns = ("rule", "seconds", "peak MB", "pairs", "exponent by prompts", "exponent by candidates of a prompt")
    print_table(title, columns, rows)
    # The limits are for 10,000 candidates: fewer prove nothing.
    within = all(r["seconds"] < SECONDS and r["peak_bytes"] < BYTES for r in found["rules"])
    within = within and first["candidates"] >= 10_000
    print(f"limits of {SECONDS:g} s and {BYTES / 2**30:g} GB: {'kept' if within else 'NOT shown to be kept'}")
    if whole := found.get("round"):
        stages = ", ".join(f"{name} {value:.1f} s" for name, value in whole["seconds"].items())
        share = f"{whole['share_of_scoring_and_pairs']:.2%} (limit {SHARE:.0%} at {FULL_ROUND} candidates)"
        print(f"a round of {whole['candidates']} candidates: {stages}; scoring and pairs take {share}")


def figure(found: dict):
    """Seconds against candidates, both logarithmic: more prompts on the left, more candidates per prompt right."""
    from matplotlib.figure import Figure

    shown = Figure(figsize=(11, 4.6), layout="constrained")
    titles = {
        "more_prompts": "More prompts, 10 candidates each",
        "more_per_prompt": f"More candidates of {PROMPTS_GROWN} prompts",
    }
    for axes, (name, title) in zip(shown.subplots(1, 2), titles.items(), strict=True):
        for rule, grown in found["growth"].items():
            row = grown[name]
            axes.loglog(row["candidates"], row["seconds"], "o-", ms=4, label=f"{rule}: n^{row['exponent']:.2f}")
        axes.set(xlabel="candidates", ylabel="seconds", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return shown


def main() -> None:
    parser = command_parser(__doc__, "benchmark_pairs")
    parser.add_argument("--candidates", type=int, default=10_000, help="scored candidates, 10 per prompt")
    parser.add_argument("--round-candidates", type=int, default=FULL_ROUND, help="of the toybox round; 0: no round")
    parser.add_argument("--times", type=int, default=3, help="repeats; the median counts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict = {"rules": [rule_cost(rule, args.candidates // 10, 10, args.times) for rule in PAIR_RULES]}
    found["growth"] = {rule: growth(rule, args.times) for rule in PAIR_RULES}
    if args.round_candidates:
        found["round"] = round_shares(args.round_candidates)
    show(found)
    args.out.mkdir(parents=True, exist_ok=True)
    figure(found).savefig(args.out / "pairs.png", dpi=110)
    write_result(args.out / "pairs.json", found, "pairs.png")


if __name__ == "__main__":
    main()
