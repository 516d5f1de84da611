"""What pair building costs: seconds and memory of every rule, how they grow, and the share of a round that scoring and
pairing take.

    python -m dreambooth_dpo.benchmarks.pairs --out runs/benchmark_pairs

Scores are drawn at random, 10 candidates a prompt. Seconds are those of one CPU thread. Memory is what Python and NumPy
allocate at most while a rule runs. The round is one of the toybox (fresh adapter, no personalization: it costs the
same), each stage timed apart. Prints tables, writes pairs.json and pairs.png.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..dpo_core.pairs.rules import PAIR_RULES
from ..dpo_core.run.files import write_json
from ..dpo_core.settings import LoopSettings, PairSettings
from .common.clock import Clock

SECONDS, BYTES, SHARE = 5.0, 2**30, 0.05
"""What is asked: limits for 10,000 candidates of 1,000 prompts, and of scoring and pairing together in a round."""
SIZES = (500, 1000, 2000, 5000, 10_000, 20_000)
PER_PROMPT = (5, 10, 20, 40, 80, 160)
PROMPTS_GROWN = 20
FULL_ROUND = 2000
"""Candidates of the round that the share is asked for."""


def scored(prompts: int, per_prompt: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """prompt_of int [n], fidelity and alignment float [n] in -1..1, n = prompts * per_prompt; the axes pull against
    each other.
    """
    rng = np.random.default_rng(seed)
    prompt_of = np.repeat(np.arange(prompts), per_prompt)
    plain = (
        rng.multivariate_normal([0.0, 0.0], [[1.0, -0.3], [-0.3, 1.0]], len(prompt_of))
        + rng.normal(size=(prompts, 2))[prompt_of]
    )
    return prompt_of, *(0.3 * np.tanh(plain)).T


def _median_seconds(call: Callable[[], object], times: int) -> float:
    clock, taken = Clock(), []
    for _ in range(times):
        begun = clock.now()
        call()
        taken.append(clock.now() - begun)
    return statistics.median(taken)


def rule_cost(rule: str, prompts: int, per_prompt: int, times: int = 3) -> dict:
    """Median seconds, peak bytes and kept pairs of one rule on `scored` candidates."""
    data, settings = scored(prompts, per_prompt), PairSettings(rule=rule)
    seconds = _median_seconds(lambda: PAIR_RULES[rule](*data, settings), times)
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


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log seconds over log size: 1 = linear, 2 = quadratic."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def growth(rule: str, times: int = 3) -> dict:
    """Seconds over the number of prompts (10 candidates each), and over the candidates of 20 prompts, with fitted
    exponents.
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
            seconds.append(_median_seconds(lambda d=data, s=settings: PAIR_RULES[rule](*d, s), times))
        found[name] = {"candidates": sizes, "seconds": seconds, "exponent": exponent(sizes, seconds)}
    return found


def round_shares(candidates: int, settings: LoopSettings | None = None) -> dict:
    """Seconds of each stage of a toybox round with about so many candidates, and the share of scoring and pairing in
    their sum.
    """
    from ..dpo_core.backends.diffusers.model import DiffusersTextToImage
    from ..dpo_core.loop.rounds import Loop
    from ..dpo_core.run.folder import RunFolder
    from ..dpo_core.sampling.sets import sample_set
    from ..dpo_core.scoring.sets import score_set
    from ..dpo_core.training.adapter import Adapter, drawing
    from ..toybox.concepts import concept_from_seed
    from ..toybox.defaults import TOY_SETTINGS
    from ..toybox.run import toy_pipeline, toy_prompts, toy_scorers

    settings, toy = settings or TOY_SETTINGS, concept_from_seed(5)
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
            seconds[name] = _median_seconds(stage, 1)
        count = len(run.candidates("round_0"))
    share = (seconds["score"] + seconds["pairs"]) / sum(seconds.values())
    return {"candidates": count, "seconds": seconds, "share_of_scoring_and_pairs": share}


def _show(found: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    title = "{candidates} candidates of {prompts} prompts; exponents of growth with prompts, and with candidates of a prompt".format(
        **found["rules"][0]
    )
    rules = Table("rule", "seconds", "peak MB", "pairs", "more prompts", "more of a prompt", title=title)
    for row in found["rules"]:
        grown = [f"{found['growth'][row['rule']][k]['exponent']:.2f}" for k in ("more_prompts", "more_per_prompt")]
        rules.add_row(
            row["rule"], f"{row['seconds']:.3f}", f"{row['peak_bytes'] / 2**20:.1f}", str(row["pairs"]), *grown
        )
    Console(width=130).print(rules)
    # The limits are for 10,000 candidates: fewer are no proof.
    within = found["rules"][0]["candidates"] >= 10_000 and all(
        r["seconds"] < SECONDS and r["peak_bytes"] < BYTES for r in found["rules"]
    )
    print(f"limits of {SECONDS:g} s and {BYTES / 2**30:g} GB: {'kept' if within else 'NOT shown to be kept'}")
    if whole := found.get("round"):
        said = ", ".join(f"{name} {value:.1f} s" for name, value in whole["seconds"].items())
        print(f"a round of {whole['candidates']} candidates: {said}; ", end="")
        print(
            f"scoring and pairs take {whole['share_of_scoring_and_pairs']:.2%} (asked: under {SHARE:.0%} at {FULL_ROUND})"
        )


def _picture(found: dict, path: Path) -> None:
    """Seconds over candidates, both axes logarithmic: more prompts on the left, more candidates a prompt on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    titles = {
        "more_prompts": "More prompts, 10 candidates each",
        "more_per_prompt": f"More candidates of {PROMPTS_GROWN} prompts",
    }
    for axes, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for rule, grown in found["growth"].items():
            row = grown[name]
            axes.loglog(row["candidates"], row["seconds"], "o-", ms=4, label=f"{rule}: n^{row['exponent']:.2f}")
        axes.set(xlabel="candidates", ylabel="seconds", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_pairs"))
    parser.add_argument("--candidates", type=int, default=10_000, help="scored candidates, 10 a prompt")
    parser.add_argument("--round-candidates", type=int, default=FULL_ROUND, help="of the toybox round; 0 leaves it out")
    parser.add_argument("--times", type=int, default=3, help="repeats, of which the median counts")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    found: dict = {"rules": [rule_cost(rule, args.candidates // 10, 10, args.times) for rule in PAIR_RULES]}
    found["growth"] = {rule: growth(rule, args.times) for rule in PAIR_RULES}
    if args.round_candidates:
        found["round"] = round_shares(args.round_candidates)
    _show(found)
    write_json(args.out / "pairs.json", found)
    _picture(found, args.out / "pairs.png")
    print(f"wrote {args.out / 'pairs.json'} and pairs.png")


if __name__ == "__main__":
    main()
