"""The estimate before a run: pictures, time, disk. One function each for the command line and for ComfyUI's nodes."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..settings import LoopSettings, SamplingSettings
from ..training.memory.before import Fit, fit_before
from .samples import grid_pictures

if TYPE_CHECKING:
    from .rounds import Loop

SLOWER = 4
"""Cost of a picture in training, in forwards: forward and backward (about 3), and the reference's forward."""
SHARE = 0.6
"""Size of a photo-like PNG by its raw pixels, roughly."""


@dataclass(frozen=True)
class Counted:
    """Pictures of a run without early stopping: drawn in full, as drafts, on held-out prompts, in sample grids.

    again: candidates of earlier rounds that are used again, and stored again.
    """

    candidates: int
    drafts: int
    held_out: int
    grids: int = 0
    again: int = 0

    @property
    def all(self) -> int:
        """Those that are stored and scored."""
        return self.candidates + self.drafts + self.held_out + self.again


def drawn_in(settings: LoopSettings, prompts: int, round_index: int) -> int:
    """Candidates that a round draws: for its part of the prompts, and for that of the photos."""
    of_round = len(range(round_index % settings.prompt_parts, prompts, settings.prompt_parts))
    return (of_round + settings.sampling.photo_candidates) * settings.sampling.candidates_per_prompt


def used_again(settings: LoopSettings, prompts: int, round_index: int) -> int:
    """Candidates of earlier rounds that join those of a round."""
    before = min(settings.sampling.earlier_rounds, round_index // settings.prompt_parts)
    return before * drawn_in(settings, prompts, round_index)


def count(settings: LoopSettings, prompts: int, held_out: int) -> Counted:
    """Pictures of a run with these numbers of training and held-out prompts.

    With drafts every candidate is a draft first; at most all of them are then drawn in full.
    """
    candidates, again = (sum(of(settings, prompts, r) for r in range(settings.rounds)) for of in (drawn_in, used_again))
    sets = settings.rounds + 1 if settings.evaluation.every_round else 2
    pictures = sets * held_out * settings.evaluation.seeds_per_prompt
    if settings.sweep:
        seeds = settings.strength.seeds_per_prompt or max(2, settings.evaluation.seeds_per_prompt)
        pictures += (len(settings.strength.strengths) - 2) * held_out * seeds  # 0 and 1 are drawn already
    drafts = candidates if settings.sampling.draft_steps else 0
    return Counted(candidates, drafts, pictures, grid_pictures(settings, held_out), again)


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
    drawn = s.of_candidates()
    candidate, usual = (timed.picture + one * forwards(how) for how in (drawn, s))
    draft = timed.picture + one * (2 if drawn.guidance > 1 else 1) * s.draft_steps
    steps = settings.rounds * train.steps * train.batch_size * train.accumulation
    return (
        counted.candidates * candidate
        + (counted.held_out + counted.grids) * usual
        + counted.drafts * draft
        + steps * train.width * SLOWER * one
    )


def gigabytes(counted: Counted, settings: LoopSettings, latent: int, adapter: int) -> float:
    """Disk of a whole run. latent: values of one picture's latents; adapter: values of the adapter. Unit: 1e9 bytes."""
    pixels = settings.sampling.width * settings.sampling.height * 3
    states = (settings.rounds + 1) * 4 * adapter + 3 * 4 * adapter  # each round's adapter; the optimizer's state once
    return (counted.all * (SHARE * pixels + 4 * latent) + states) / 1e9


def forwards(sampling: SamplingSettings) -> int:
    """Forwards of the denoiser for one picture: one a step, and a second one where guidance acts."""
    return sampling.steps + sampling.guided_steps


def training_forwards(settings: LoopSettings) -> int:
    """Cost of one training step, in forwards of one picture: SLOWER for each picture of its pairs or groups."""
    train = settings.train
    return train.width * SLOWER * train.batch_size * train.accumulation


def free_gigabytes(path: Path) -> float:
    """Free disk space where `path` is, or would be made. Unit: 1e9 bytes."""
    return shutil.disk_usage(next(p for p in (path, *path.absolute().parents) if p.is_dir())).free / 1e9


def check_disk(needed: float, path: Path) -> float:
    """The free disk space at `path` (1e9 bytes). Raises UserError where `needed` (1e9 bytes) is more."""
    free = free_gigabytes(path)
    if needed > free:
        raise UserError(
            f"the run needs about {needed:.2g} GB under {path}, where {free:.2g} GB are free. Free some, or draw fewer "
            "or smaller pictures, or run fewer rounds."
        )
    return free


def pictures_words(counted: Counted) -> str:
    """ "Pictures to draw: 60 candidates (60 drafts first) and 16 on held-out prompts." """
    drafts = f" ({counted.drafts} drafts first)" if counted.drafts else ""
    grids = f", {counted.grids} in sample grids" if counted.grids else ""
    again = f" {counted.again} candidates of earlier rounds are used again." if counted.again else ""
    said = f"{counted.candidates} candidates{drafts} and {counted.held_out} on held-out prompts{grids}"
    return f"Pictures to draw: {said}.{again}"


def disk_words(needed: float, free: float, where: object = None) -> str:
    """ "Disk: about 1.2 GB; 60 GB are free." """
    under = "" if where is None else f" under {where}"
    return f"Disk: about {needed:.2g} GB{under}; {free:.0f} GB are free."


def before_start(
    settings: LoopSettings,
    prompts: tuple[int, int],
    values: tuple[int, int],
    folder: Path,
    begun: bool,
    fit: Fit | None,
) -> tuple[str, ...]:
    """What is said before the first picture: pictures, disk and memory. Raises UserError where the disk is too small.

    prompts: numbers of training and held-out prompts. values: of one picture's latents, and of the adapter. begun: the
    run goes on; what it has stored is in the disk's use already, so it is not refused. fit: the predicted memory.
    """
    counted = count(settings, *prompts)
    size = gigabytes(counted, settings, *values)
    free = free_gigabytes(folder) if begun else check_disk(size, folder)
    return (pictures_words(counted), disk_words(size, free), *([fit.words()] if fit else []))


def loop_fit(loop: Loop) -> Fit | None:
    """The predicted memory of the loop's training. Raises UserError where the device is too small (`fit_before`)."""
    settings, prompt = loop.settings, loop.prompts.train[0]
    shape = loop.model.latent_shape(settings.sampling)
    return fit_before(loop.model, loop.adapter.settings, settings.train, shape, prompt)


def check_room(loop: Loop) -> None:
    """Log what a headless run takes; a model that tells no `latent_shape` is not estimated.

    Raises UserError where disk or device cannot hold a run that has not begun.
    """
    if not hasattr(loop.model, "latent_shape"):
        return
    begun = loop.run.has_candidates()
    values = (
        math.prod(loop.model.latent_shape(loop.settings.sampling)),
        sum(p.numel() for p in loop.adapter.parameters()),
    )
    prompts = len(loop.prompts.train), len(loop.prompts.held_out)
    fit = None if begun else loop_fit(loop)
    logging.info(" ".join(before_start(loop.settings, prompts, values, loop.run.path, begun, fit)))
