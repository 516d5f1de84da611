"""The check before a run: loads and checks all that `run` does, counts and estimates, and writes no run folder."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..dpo_core.config import RunConfig
from ..dpo_core.errors import UserError
from ..dpo_core.loop.samples import grid_pictures
from ..dpo_core.progress import duration
from ..dpo_core.settings import LoopSettings

if TYPE_CHECKING:
    from ..dpo_core.loop.rounds import Loop

SLOWER = 4
"""Cost of a picture in training, in forwards: forward and backward (about 3), and the reference's forward."""
SHARE = 0.6
"""Size of a photo-like PNG by its raw pixels, roughly."""


@dataclass(frozen=True)
class Counted:
    """Pictures of a run without early stopping: drawn in full, as drafts, on held-out prompts, in sample grids."""

    candidates: int
    drafts: int
    held_out: int
    grids: int = 0

    @property
    def all(self) -> int:
        """Those that are stored and scored."""
        return self.candidates + self.drafts + self.held_out


def count(settings: LoopSettings, prompts: int, held_out: int) -> Counted:
    """Pictures of a run with these numbers of training and held-out prompts.

    With drafts every candidate is a draft first; at most all of them are then drawn in full.
    """
    drawn_for = prompts + settings.sampling.photo_candidates  # the photos' own prompt
    candidates = settings.rounds * drawn_for * settings.sampling.candidates_per_prompt
    sets = settings.rounds + 1 if settings.evaluation.every_round else 2
    pictures = sets * held_out * settings.evaluation.seeds_per_prompt
    if settings.sweep:
        seeds = settings.strength.seeds_per_prompt or max(2, settings.evaluation.seeds_per_prompt)
        pictures += (len(settings.strength.strengths) - 2) * held_out * seeds  # 0 and 1 are drawn already
    return Counted(
        candidates, candidates if settings.sampling.draft_steps else 0, pictures, grid_pictures(settings, held_out)
    )


@dataclass(frozen=True)
class Timed:
    """Seconds of one picture apart from its steps, and of one guided step; measured once, after a first picture."""

    picture: float
    step: float


def seconds(counted: Counted, settings: LoopSettings, timed: Timed) -> float:
    """Drawing and training of a whole run. Unit: seconds; scoring is not in it.

    A step of a picture has two forwards where guidance acts. Training costs SLOWER forwards for each picture
    of a pair or group.
    """
    s, train = settings.sampling, settings.train
    one = timed.step / (2 if s.guidance > 1 else 1)
    per_picture = timed.picture + one * (s.steps + s.guided_steps)
    draft = timed.picture + timed.step * s.draft_steps
    steps = settings.rounds * train.steps * train.batch_size * train.accumulation
    return (
        (counted.candidates + counted.held_out + counted.grids) * per_picture
        + counted.drafts * draft
        + steps * train.width * SLOWER * one
    )


def gigabytes(counted: Counted, settings: LoopSettings, latent: int, adapter: int) -> float:
    """Disk of a whole run. latent: values of one picture's latents; adapter: values of the adapter. Unit: 1e9 bytes."""
    pixels = settings.sampling.width * settings.sampling.height * 3
    states = (settings.rounds + 1) * 4 * adapter + 3 * 4 * adapter  # each round's adapter; the optimizer's state once
    return (counted.all * (SHARE * pixels + 4 * latent) + states) / 1e9


def time_pictures(loop: Loop, clock: Callable[[], float] = time.perf_counter) -> Timed:
    """Time one picture of one step and one of three, after one that warms up. Nothing is stored."""
    model, sampling = loop.model, loop.settings.sampling
    prompt = [loop.prompts.train[0]]

    def taken(steps: int) -> float:
        settings = sampling.model_copy(update={"steps": steps, "draft_steps": 0, "guidance_until": 1.0})
        start = clock()
        model.decode(model.sample(prompt, [0], settings))
        return clock() - start

    taken(1)
    one, three = taken(1), taken(3)
    step = max(0.0, three - one) / 2
    return Timed(max(0.0, one - step), step)


def dry_run(config: RunConfig, resume: bool, processes: int = 1) -> list[str]:
    """Check all that `run` checks; return the lines that say what it would do. Raises what `run` raises.

    processes: how many will share the work.
    """
    from ..headless import loop_from_config

    with tempfile.TemporaryDirectory(prefix="dreambooth_dpo_", ignore_cleanup_errors=True) as folder:
        _stand_in(config.output, Path(folder))
        try:
            loop = loop_from_config(config.model_copy(update={"output": Path(folder)}), resume)
            with loop.run:
                loop.check_enough()
                return _lines(loop, config.output, processes)
        except UserError as error:
            raise UserError(str(error).replace(folder, str(config.output))) from error


def _stand_in(output: Path, folder: Path) -> None:
    """Copy what the check of an earlier run in the output folder reads, so that nothing is written there."""
    if output.exists() and not output.is_dir():
        raise UserError(f"output {output} is a file. Choose a folder.")
    for file in output.glob("records.sqlite*") if output.is_dir() else ():
        shutil.copy(file, folder / file.name)


def _lines(loop: Loop, output: Path, processes: int) -> list[str]:
    """What the run would do, a line each. Raises UserError where the disk is too small."""
    settings, prompts = loop.settings, loop.prompts
    counted = count(settings, len(prompts.train), len(prompts.held_out))
    scorers = len(loop.rewards) + len(loop.judges)
    took = seconds(counted, settings, time_pictures(loop)) / processes
    shared = f", shared by {processes} processes" if processes > 1 else ""
    adapter = sum(p.numel() for p in loop.adapter.parameters())
    size = gigabytes(counted, settings, math.prod(loop.model.latent_shape(settings.sampling)), adapter)
    free = shutil.disk_usage(next(p for p in (output, *output.absolute().parents) if p.is_dir())).free / 1e9
    if size > free:
        raise UserError(f"the run needs about {size:.2g} GB under {output}, where {free:.2g} GB are free. Free some.")
    drafts = f" ({counted.drafts} drafts first)" if counted.drafts else ""
    grids = f", {counted.grids} in sample grids" if counted.grids else ""
    return [
        f"All is there: model, photos, {len(prompts.train)} training prompts, {len(prompts.held_out)} held-out "
        f"prompts, scorers ({', '.join(s.name for s in [*loop.rewards, *loop.judges])}).",
        f"Pictures to draw: {counted.candidates} candidates{drafts} and {counted.held_out} on held-out prompts{grids}. "
        f"Scores: {counted.all * scorers}.",
        f"Time: about {duration(took)} for drawing and training on {loop.model.device}{shared}, from three pictures "
        "of few steps; the time of scoring is unknown. Early stopping may end it sooner.",
        f"Disk: about {size:.2g} GB under {output}; {free:.0f} GB are free.",
        "Nothing was written. Without --dry-run it starts.",
    ]
