"""The check before a run: loads and checks all that `run` does, counts and estimates, and writes no run folder."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..dpo_core.config import RunConfig
from ..dpo_core.errors import UserError
from ..dpo_core.loop.estimate import (
    Timed,
    check_disk,
    count,
    disk_words,
    gigabytes,
    loop_fit,
    pictures_words,
    seconds,
)
from ..dpo_core.progress import duration

if TYPE_CHECKING:
    from ..dpo_core.loop.rounds import Loop


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
    free, fit = check_disk(size, output), loop_fit(loop)
    return [
        f"All is there: model, photos, {len(prompts.train)} training prompts, {len(prompts.held_out)} held-out "
        f"prompts, scorers ({', '.join(s.name for s in [*loop.rewards, *loop.judges])}).",
        f"{pictures_words(counted)} Scores: {counted.all * scorers}.",
        f"Time: about {duration(took)} for drawing and training on {loop.model.device}{shared}, from three pictures "
        "of few steps; the time of scoring is unknown. Early stopping may end it sooner.",
        disk_words(size, free, output),
        *([fit.words()] if fit else []),
        "Nothing was written. Without --dry-run it starts.",
    ]
