"""The pack's sampling stage against a plain diffusers pipeline in a loop, and the seconds of each phase."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import suppress
from pathlib import Path

from ...dpo_core.settings import PairSettings, SamplingSettings
from ..common.clock import Clock
from ..common.tables import print_table
from .models import pipeline, sampling_settings

VARIANTS = {
    "no guidance": {"guidance": 1.0},
    "guidance 4": {"guidance": 4.0},
    "guidance 4 until 0.5": {"guidance": 4.0, "guidance_until": 0.5},
}
PHASES = ("text", "denoise", "decode", "write", "score", "pairs")
CANDIDATES = 8
"""Per prompt."""


def prompts_and_toy(count: int) -> tuple[list[str], object]:
    """The first `count` training prompts of toybox concept 5, and the concept."""
    from ...toybox.concepts import concept_from_seed
    from ...toybox.run import toy_prompts

    toy = concept_from_seed(5)
    return list(toy_prompts(toy).train[:count]), toy


def peer_seconds(pipe, prompts: list[str], settings: SamplingSettings, clock: Clock, folder: Path) -> float:
    """Seconds of the pipeline, called batch by batch, for the planned candidates and their PNGs."""
    import torch

    from ...dpo_core.sampling.sets import plan

    folder.mkdir()
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
    """Seconds of our sampling stage for the same candidates; no prompt is encoded beforehand."""
    from ...dpo_core.run.folder import RunFolder
    from ...dpo_core.sampling.sets import sample_set

    model._cond.clear()
    begun = clock.now()
    with RunFolder(folder) as run:
        sample_set(run, "round_0", model, prompts, settings.candidates_per_prompt, settings, settings.seed, 0)
        return clock.now() - begun


def phase_seconds(
    model, prompts: list[str], toy, settings: SamplingSettings, clock: Clock, folder: Path
) -> dict[str, float]:
    """Seconds of each phase of sampling, scoring (by the toybox's rewards, references embedded before) and pairing."""
    from ...dpo_core.pairs.build import NoPairs, build_pairs
    from ...dpo_core.run.folder import RunFolder
    from ...dpo_core.sampling.sets import sample_set
    from ...dpo_core.scoring.sets import score_set
    from ...toybox.run import toy_scorers

    rewards = toy_scorers(toy, str(model.device)).rewards
    for scorer in rewards:
        scorer.score(toy.to_concept().references, prompts[:1] * len(toy.to_concept().references))
    model._cond.clear()
    methods = {"encode_prompts": "text", "sample": "denoise", "decode": "decode"}
    with RunFolder(folder) as run:
        with clock.timing(model, methods), clock.timing(run, {"add_chunk": "write"}):
            sample_set(run, "round_0", model, prompts, settings.candidates_per_prompt, settings, settings.seed, 0)
        with clock.phase("score"):
            score_set(run, "round_0", rewards)
        with clock.phase("pairs"), suppress(NoPairs):  # random weights give noise
            build_pairs(run, "round_0", PairSettings(max_pairs_per_prompt=6, max_uses=3), "round_0")
    return clock.seconds


def compare(name: str, device: str, turns: int, count: int, batch: int) -> list[dict]:
    """One row per variant: pictures per second of both sides, their ratio in each turn, and seconds of our phases."""
    from diffusers import DPMSolverMultistepScheduler

    from ...dpo_core.backends.diffusers.model import DiffusersTextToImage

    pipe = pipeline(name, device)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    model, (prompts, toy) = DiffusersTextToImage(pipe), prompts_and_toy(count)
    rows = []
    for title, change in VARIANTS.items():
        settings = sampling_settings(name, batch_size=batch, candidates_per_prompt=CANDIDATES, **change)
        ours, peer = [], []
        with tempfile.TemporaryDirectory() as scratch:
            clock = Clock(device, PHASES)
            # One warm-up for both sides: they share their modules.
            peer_seconds(pipe, prompts[:1], settings, clock, Path(scratch) / "warm_up")
            for turn in range(turns):
                sides = [(peer, peer_seconds, pipe, f"peer_{turn}"), (ours, our_seconds, model, f"ours_{turn}")]
                for taken, side, sampler, folder in sides if turn % 2 else sides[::-1]:
                    taken.append(side(sampler, prompts, settings, clock, Path(scratch) / folder))
            phases = phase_seconds(model, prompts, toy, settings, clock, Path(scratch) / "phases")
        pictures = len(prompts) * settings.candidates_per_prompt
        ratios = [p / o for p, o in zip(peer, ours, strict=True)]
        speeds = {"ours_per_s": pictures / statistics.median(ours), "peer_per_s": pictures / statistics.median(peer)}
        about = {"variant": title, "pictures": pictures, "batch": batch, "steps": settings.steps}
        rows.append({**about, **speeds, "ratio": statistics.median(ratios), "ratios": ratios, "phases_s": phases})
    return rows


def show(name: str, rows: list[dict], seconds_are: str) -> None:
    speeds, shares = [], []
    for row in rows:
        ratios = f"{min(row['ratios']):.3f} to {max(row['ratios']):.3f}"
        numbers = (f"{row['ours_per_s']:.2f}", f"{row['peer_per_s']:.2f}", f"{row['ratio']:.3f}")
        speeds.append([row["variant"], *numbers, ratios])
        whole = sum(row["phases_s"].values())
        shares.append([row["variant"], *(f"{s:.2f} ({s / whole:.1%})" for s in row["phases_s"].values())])
    columns = ("variant", "ours, pictures/s", "diffusers, pictures/s", "ratio", "ratios")
    print_table(f"{name}: {rows[0]['pictures']} pictures", columns, speeds)
    print_table(f"{seconds_are} by phase, ours (and share)", ("variant", *PHASES), shares)
