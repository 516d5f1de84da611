"""Cost of candidates: the pack's sampling stage against a plain diffusers pipeline in a loop, the seconds of each
phase, and pairs per second of several ways to draw fewer candidates.

    python -m dreambooth_dpo.benchmarks.sampling --model toybox --out runs/benchmark_sampling

Both sides draw the same prompts in equal batches, with the same scheduler, steps, size and precision, and write PNGs;
ours also keeps latents and records. The sides take turns. Seconds are those of common/clock.py. The ratio is the median
over turns of our pictures per second to the peer's. The peer's pipeline guides all steps, also beside `guidance_until`,
which it does not have. `--concepts 5-7` adds pairs per second on toybox concepts under the pair rule `--rule`, see
outcomes.py. Prints tables, writes sampling.json and frontier.png.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import torch

from ...dpo_core.settings import PairSettings
from ..common.clock import Clock
from ..common.command import command_parser, write_result
from ..common.concepts import EARLIER
from . import diffusers_loop
from .frontier import against_plain, correlations, figure, frontier, show_frontier
from .models import MODELS
from .outcomes import show_ways, table
from .records import draw
from .ways import RULES


def pair_rates(seeds: list[int], out: Path, rule: str, guidance: float, noises: int) -> dict:
    """Pairs per second by a rule on toybox concepts for every way of drawing: at the measured costs, and if decoding
    and scoring cost 3 % of denoising.
    """
    from ...dpo_core.report.plots.figure import figure_image

    pairs = EARLIER.pairs.model_copy(update={"rule": rule})
    drawn = [draw(seed, out, guidance, noises) for seed in seeds]
    seconds = {phase: statistics.mean(s[phase] for _, s in drawn) for phase in drawn[0][1]}
    concepts = [records for records, _ in drawn]
    found: dict = {"rule": rule, "guidance": guidance, "noises": noises, "concepts": seeds}
    found["seconds_a_picture"] = seconds
    if rule != "angle_window":
        found["correlation_of_looks"] = correlations(concepts, pairs)
        listed = ", ".join(f"{k} {v:.2f}" for k, v in found["correlation_of_looks"].items())
        print(f"correlation with the reward of the finished picture: {listed}")
    cheap = {**seconds, "decode": 0.03 * seconds["denoise"], "score": 0.0}
    about = f"{rule}, guidance {guidance:g}, concepts {', '.join(map(str, seeds))}"
    for name, costs in (("measured", seconds), ("if looking cost 3 % of denoising", cheap)):
        rows = table(concepts, costs, pairs, EARLIER.sampling.steps)
        levels, chosen = frontier(rows), against_plain(concepts, costs, pairs)
        found[name] = {"ways": rows, "frontier": levels, "chosen": chosen}
        show_ways(rows, f"{about}; costs {name}")
        show_frontier(levels, chosen, f"{about}; costs {name}")
    title = f"Plain and drafted candidates, {len(seeds)} toybox subjects, guidance {guidance:g}"
    figure_image(figure(found["measured"]["frontier"], title)).save(out / "frontier.png")
    return found


def main() -> None:
    parser = command_parser(__doc__, "benchmark_sampling", concepts="")
    parser.add_argument("--model", default="toybox", help=", ".join(MODELS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--turns", type=int, default=5, help="turns of both sides; 0 leaves out the comparison")
    parser.add_argument("--prompts", type=int, default=8, help=f"{diffusers_loop.CANDIDATES} candidates each")
    parser.add_argument("--batch", type=int, default=32)
    about_rule = "pair rule for --concepts; default: %(default)s"
    parser.add_argument("--rule", choices=RULES, default=PairSettings().rule, help=about_rule)
    parser.add_argument("--guidance", type=float, default=1.0, help="guidance scale for --concepts; 1 is off")
    parser.add_argument("--noises", type=int, default=0, help="added to the seed of the candidates of --concepts")
    args = parser.parse_args()
    found: dict = {"model": args.model, "device": args.device}
    if args.turns:
        rows = diffusers_loop.compare(args.model, args.device, args.turns, args.prompts, args.batch)
        found |= {"sampling": rows, "threads": torch.get_num_threads(), "seconds_are": Clock(args.device).kind}
        diffusers_loop.show(args.model, rows, found["seconds_are"])
    args.out.mkdir(parents=True, exist_ok=True)
    if args.concepts:
        found["pairs"] = pair_rates(args.concepts, args.out, args.rule, args.guidance, args.noises)
    write_result(args.out / "sampling.json", found)


if __name__ == "__main__":
    main()
