"""What candidates cost: our sampling stage against a plain diffusers pipeline in a loop, and where the time goes.

    python -m dreambooth_dpo.benchmarks.sampling --model toybox --out runs/benchmark_sampling

Both sides draw the same prompts in equal batches, with the same scheduler, steps, size and precision, and write PNGs;
ours also keeps latents and records. They take turns, and seconds are those of clock.py; the ratio is the median over
turns of ours to the peer's pictures a second. The peer's pipeline guides all steps, also beside `guidance_until`, which
it has no name for. `--concepts 5-7` adds, on the toybox, what sparing candidates brings under the pair rule `--rule`:
see sampling_pairs.py. Prints tables, writes sampling.json and frontier.png.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import suppress
from pathlib import Path

from ...dpo_core.run.files import write_json
from ...dpo_core.settings import PairSettings, SamplingSettings
from ..common.clock import Clock
from ..concepts import parse_numbers
from .models import MODELS, pipeline, sampling_settings
from .ways import RULES

VARIANTS = {
    "no guidance": {"guidance": 1.0},
    "guidance 4": {"guidance": 4.0},
    "guidance 4 until 0.5": {"guidance": 4.0, "guidance_until": 0.5},
}
PHASES = ("text", "denoise", "decode", "write", "score", "pairs")


def prompts_and_toy(count: int) -> tuple[list[str], object]:
    """The first `count` training prompts of toybox concept 5, and the concept."""
    from ...toybox.concepts import concept_from_seed
    from ...toybox.run import toy_prompts

    toy = concept_from_seed(5)
    return list(toy_prompts(toy).train[:count]), toy


def peer_seconds(pipe, prompts: list[str], settings: SamplingSettings, clock: Clock, folder: Path) -> float:
    """Seconds that the pipeline, called batch by batch, takes for the plan's pictures and their PNGs."""
    import torch

    from ...dpo_core.sampling.sets import plan

    begun, planned = clock.now(), plan(prompts, settings.candidates_per_prompt, settings.seed, 0, settings.batch_size)
    for first in range(0, len(planned), settings.batch_size):
        members = planned[first : first + settings.batch_size]
        pictures = pipe(
            [c.prompt for c in members],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            width=settings.width,
            height=settings.height,
            generator=[torch.Generator().manual_seed(c.seed) for c in members],
        ).images
        for candidate, picture in zip(members, pictures, strict=True):
            picture.save(folder / f"{candidate.position:05d}.png")
    return clock.now() - begun


def our_seconds(model, prompts: list[str], settings: SamplingSettings, clock: Clock, folder: Path) -> float:
    """Seconds that our sampling stage takes for the same, from an empty memory of encoded prompts."""
    from ...dpo_core.run.folder import RunFolder
    from ...dpo_core.sampling.sets import sample_set

    model._cond.clear()
    begun = clock.now()
    with RunFolder(folder) as run:
        sample_set(run, "round_0", model, prompts, settings.candidates_per_prompt, settings, settings.seed, 0)
        return clock.now() - begun


def breakdown(
    model, prompts: list[str], toy, settings: SamplingSettings, clock: Clock, folder: Path
) -> dict[str, float]:
    """Seconds of each phase of drawing, scoring (by the toybox's rewards, references embedded before) and pairing."""
    from ...dpo_core.pairs.build import NoPairs, build_pairs
    from ...dpo_core.run.folder import RunFolder
    from ...dpo_core.sampling.sets import sample_set
    from ...dpo_core.scoring.sets import score_set
    from ...toybox.run import toy_scorers

    rewards = toy_scorers(toy, str(model.device)).rewards
    for scorer in rewards:
        scorer.score(toy.to_concept().references, prompts[:1] * len(toy.to_concept().references))
    model._cond.clear()
    kept = {name: getattr(model, name) for name in ("encode_prompts", "sample", "decode")}
    with RunFolder(folder) as run:
        run.add_chunk = clock.wrapped("write", run.add_chunk)
        for name, phase in (("encode_prompts", "text"), ("sample", "denoise"), ("decode", "decode")):
            setattr(model, name, clock.wrapped(phase, kept[name]))
        try:
            sample_set(run, "round_0", model, prompts, settings.candidates_per_prompt, settings, settings.seed, 0)
        finally:
            for name in kept:
                delattr(model, name)
        with clock.phase("score"):
            score_set(run, "round_0", rewards)
        with clock.phase("pairs"):
            with suppress(NoPairs):  # random weights draw noise
                build_pairs(run, "round_0", PairSettings(max_pairs_per_prompt=6, max_uses=3), "round_0")
    return clock.seconds


def compare(name: str, device: str, turns: int, count: int, batch: int) -> list[dict]:
    """A row a variant: pictures a second of both sides, their ratio by turns, and our breakdown."""
    from diffusers import DPMSolverMultistepScheduler

    from ...dpo_core.backends.diffusers.model import DiffusersTextToImage

    pipe = pipeline(name, device)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    model, (prompts, toy) = DiffusersTextToImage(pipe), prompts_and_toy(count)
    rows = []
    for title, change in VARIANTS.items():
        settings = sampling_settings(name, batch_size=batch, candidates_per_prompt=8, **change)
        ours, peer = [], []
        with tempfile.TemporaryDirectory() as scratch:
            clock = Clock(device, PHASES)
            peer_seconds(pipe, prompts[:1], settings, clock, Path(scratch))  # warms both up: they share their modules
            for turn in range(turns):
                (Path(scratch) / f"peer_{turn}").mkdir()
                sides = [(peer, peer_seconds, pipe, f"peer_{turn}"), (ours, our_seconds, model, f"ours_{turn}")]
                for kept, side, object_, folder in sides if turn % 2 else sides[::-1]:
                    kept.append(side(object_, prompts, settings, clock, Path(scratch) / folder))
            phases = breakdown(model, prompts, toy, settings, clock, Path(scratch) / "phases")
        pictures = len(prompts) * settings.candidates_per_prompt
        ratios = [p / o for p, o in zip(peer, ours, strict=True)]
        speeds = {"ours_per_s": pictures / statistics.median(ours), "peer_per_s": pictures / statistics.median(peer)}
        about = {"variant": title, "pictures": pictures, "batch": batch, "steps": settings.steps}
        rows.append({**about, **speeds, "ratio": statistics.median(ratios), "ratios": ratios, "phases_s": phases})
    return rows


def _show(name: str, found: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = found["sampling"]
    speed = Table(
        "variant",
        "ours, pictures/s",
        "diffusers, pictures/s",
        "ratio",
        "ratios",
        title=f"{name}: {rows[0]['pictures']} pictures",
    )
    where = Table("variant", *PHASES, title=f"{found['seconds_are']} by phase, ours (and share)")
    for row in rows:
        ratios = f"{min(row['ratios']):.3f}..{max(row['ratios']):.3f}"
        speed.add_row(
            row["variant"], f"{row['ours_per_s']:.2f}", f"{row['peer_per_s']:.2f}", f"{row['ratio']:.3f}", ratios
        )
        whole = sum(row["phases_s"].values())
        where.add_row(row["variant"], *(f"{s:.2f} ({s / whole:.1%})" for s in row["phases_s"].values()))
    for table in (speed, where):
        Console(width=130).print(table)


def spared(seeds: list[int], out: Path, rule: str, guidance: float, noises: int) -> dict:
    """Pairs a second by a rule on toybox concepts, plain and sparing: at the measured costs, and if looking cost 3 % of
    denoising.
    """
    from ...dpo_core.report.plots.cloud import figure_image
    from ...toybox.defaults import TOY_SETTINGS
    from .frontier import against_plain, correlations, figure, frontier
    from .outcomes import draw, show, show_frontier, table

    pairs = TOY_SETTINGS.pairs.model_copy(update={"rule": rule})
    drawn = [draw(seed, out, guidance, noises) for seed in seeds]
    seconds = {phase: statistics.mean(s[phase] for _, s in drawn) for phase in drawn[0][1]}
    concepts = [records for records, _ in drawn]
    found: dict = {
        "rule": rule,
        "guidance": guidance,
        "noises": noises,
        "concepts": seeds,
        "seconds_a_picture": seconds,
    }
    if rule != "angle_window":
        found["correlation_of_looks"] = correlations(concepts, pairs)
        print(
            "correlation with the whole picture's reward: "
            + ", ".join(f"{k} {v:.2f}" for k, v in found["correlation_of_looks"].items())
        )
    cheap = {**seconds, "decode": 0.03 * seconds["denoise"], "score": 0.0}
    about = f"{rule}, guidance {guidance:g}, concepts {', '.join(map(str, seeds))}"
    for name, costs in (("measured", seconds), ("if looking cost 3 % of denoising", cheap)):
        rows = table(concepts, costs, pairs, TOY_SETTINGS.sampling.steps)
        levels, chosen = frontier(rows), against_plain(concepts, costs, pairs)
        found[name] = {"ways": rows, "frontier": levels, "chosen": chosen}
        show(rows, f"{about}; costs {name}")
        show_frontier(levels, chosen, f"{about}; costs {name}")
    title = f"Plain and drafted candidates, {len(seeds)} toybox subjects, guidance {guidance:g}"
    figure_image(figure(found["measured"]["frontier"], title)).save(out / "frontier.png")
    return found


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="toybox", help=", ".join(MODELS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_sampling"))
    parser.add_argument("--turns", type=int, default=5, help="of both sides, alternating; 0 leaves the comparison out")
    parser.add_argument("--prompts", type=int, default=8, help="8 pictures each")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--concepts", default="", help="toybox concepts for pairs per second, e.g. 5-7; empty: left out"
    )
    parser.add_argument(
        "--rule", choices=RULES, default=PairSettings().rule, help="pair rule for them; the default is the pack's"
    )
    parser.add_argument("--guidance", type=float, default=1.0, help="of those candidates; the toybox's own is 1, off")
    parser.add_argument("--noises", type=int, default=0, help="another number draws the same prompts from other noises")
    args = parser.parse_args()
    found: dict = {"model": args.model, "device": args.device}
    if args.turns:
        found["sampling"] = compare(args.model, args.device, args.turns, args.prompts, args.batch)
        found |= {"threads": torch.get_num_threads(), "seconds_are": Clock(args.device).kind}
        _show(args.model, found)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.concepts:
        found["pairs"] = spared(parse_numbers(args.concepts), args.out, args.rule, args.guidance, args.noises)
    write_json(args.out / "sampling.json", found)
    print(f"wrote {args.out / 'sampling.json'}")


if __name__ == "__main__":
    main()
