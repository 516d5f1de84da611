"""Training loop of one round: steps, metric checks, guards, fallback to a lower memory level on out-of-memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch

from ..errors import UserError
from ..seeds import derive_seed
from ..settings import TrainSettings
from .gradient_check import NotDifferentiable
from .memory.compile import compiled, uncompiled
from .memory.levels import LEVELS, at_level
from .pending import Pending, TrainingStopped
from .self_test import self_test
from .trainer import Trainer

ALARM_WINDOW = 20
"""Number of steps that the winner-error alarm averages over."""

Save = Callable[[int, dict[str, torch.Tensor], list[dict]], None]
"""save(next_step, trainer state, records since the last save)"""
Show = Callable[[int], None]
"""show(steps done): draws pictures with the adapter as it is then. It must change nothing that training depends on."""


@dataclass
class _Progress:
    """Progress of a round: all records, those not saved yet (`fresh`), and the last good state with its next step."""

    records: list[dict]
    good: dict[str, torch.Tensor]
    next_step: int
    fresh: list[dict] = field(default_factory=list)

    def saved(self, next_step: int, state: dict[str, torch.Tensor]) -> None:
        """Make this saved state the last good one."""
        self.good, self.next_step, self.fresh = state, next_step, []

    def restore(self, trainer: Trainer) -> None:
        """Put the trainer back to the last good state and drop the records after it."""
        trainer.load_state(self.good)
        del self.records[len(self.records) - len(self.fresh) :]
        self.fresh = []


def train_steps(
    trainer: Trainer,
    first_step: int = 0,
    earlier: list[dict] | None = None,
    save: Save | None = None,
    tell: Callable[[dict], None] | None = None,
    tell_cache: Callable[[int, int], None] | None = None,
    show: Show | None = None,
) -> list[dict]:
    """Run the trainer from `first_step` to its last step; returns the records of all steps, `earlier` ones included.

    The gradient self-test must pass before the first step and after each change of the memory level. Metrics are
    checked every `log_every` steps and before each save and each `show`. When the self-test or a step runs out of
    memory, training continues from the last good state at the next memory level (`trainer.level`); and so it does from
    `fast` where the model's blocks write in place, which checkpointing allows.

    `save(next_step, state, new_records)` is called every `checkpoint_every` steps and at the end; `tell(record)` when
    the metrics of a step have been checked; `tell_cache(done, of)` while the reference cache is filled; `show(done)`
    every `sample_every` steps, and again when training goes on from such a step, in the leader while others wait.

    Raises UserError when gradients are wrong or no memory level is left. Raises TrainingStopped when the loss is not
    finite or the winner's error collapses (`winner_error_collapse`), at most `log_every` steps late; the adapter then
    holds the last saved state.
    """
    done = _Progress(list(earlier or []), trainer.state(), first_step)
    while not _at_one_level(trainer, done, save, tell, tell_cache, show):
        # Not in the exception handler: there the traceback still holds the tensors of the failed step.
        done.restore(trainer)
        if trainer.model.device.type == "cuda":
            torch.cuda.empty_cache()
        said = "training continues from step %d at memory level %r"
        logging.warning(said, done.next_step + 1, trainer.level)
    return done.records


def _at_one_level(
    trainer: Trainer,
    done: _Progress,
    save: Save | None,
    tell: Callable | None,
    tell_cache: Callable | None,
    show: Show | None,
) -> bool:
    """Train to the last step at the trainer's memory level.

    Returns False when memory ran out, or the level does not suit the model, and the trainer has switched to the next.
    """
    settings, model = trainer.settings, trainer.model
    try:
        # Entered after the adapter's hooks are on, so that they are compiled too.
        compiling = compiled(model.denoiser, model.device) if settings.compile else nullcontext()
        with at_level(model.denoiser, trainer.level, settings.compile, trainer.mover):
            trainer.crew.once(lambda: self_test(model, trainer.adapter, trainer.data, trainer.level))
            with trainer.adapter.attached(), compiling:
                trainer.fill_cache(tell_cache)
                _steps(trainer, done, save, tell, show)
        return True
    except TrainingStopped as stop:
        trainer.load_state(done.good)
        stop.records = done.fresh
        raise
    except NotDifferentiable as error:
        if trainer.level == LEVELS[0] and trainer.lower_level():
            logging.warning("%s", error)
            return False
        trainer.load_state(done.good)
        raise
    except torch.OutOfMemoryError as error:
        if trainer.lower_level():
            logging.warning("training ran out of memory")
            return False
        trainer.load_state(done.good)
        raise UserError(
            f"training on {settings.batch_size} pairs at once does not fit into memory at the level {trainer.level!r}. "
            "Set memory to auto or stream, train fewer pairs at once (batch_size; pairs_per_step in ComfyUI) and raise "
            "accumulation by the same factor, or train on smaller pictures. All candidates and scores are kept."
        ) from error


def _steps(trainer: Trainer, done: _Progress, save: Save | None, tell: Callable | None, show: Show | None) -> None:
    """The step loop: advance, check metrics every `log_every` steps, show pictures every `sample_every` steps, save
    every `checkpoint_every` steps.
    """
    settings = trainer.settings
    waiting: list[Pending] = []
    if _shows(settings, done.next_step):  # the process may have ended between the save and the pictures
        _shown(trainer, show, done.next_step)
    for step in range(done.next_step, settings.steps):
        waiting.append(trainer.advance(step))
        saves = (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps
        shows = _shows(settings, step + 1)  # the same in all processes, which check at the same steps
        if not (saves or shows) and len(waiting) < settings.log_every:
            continue
        checked = _checked(trainer, waiting, done.records, done.fresh)
        waiting = []
        if saves:
            state, fresh = trainer.state(), done.fresh
            # All hear of an error: the leader alone saves, and the others would wait for its next step.
            trainer.crew.once(partial(save, step + 1, state, fresh) if save else _nothing)
            done.saved(step + 1, state)
        for record in checked if tell else ():
            tell(record)
        if shows:
            _shown(trainer, show, step + 1)


def _nothing() -> None:
    """What is saved without a run folder."""


def _shows(settings: TrainSettings, steps_done: int) -> bool:
    return bool(settings.sample_every and steps_done and steps_done % settings.sample_every == 0)


def _shown(trainer: Trainer, show: Show | None, steps_done: int) -> None:
    """Show pictures in the leader, drawn with the weights that the round would end with, and uncompiled."""

    def shown() -> None:
        if show is None:
            return
        eager = uncompiled(trainer.model.denoiser) if trainer.settings.compile else nullcontext()
        with eager, trainer.averaged():
            show(steps_done)

    trainer.crew.once(shown)


def _checked(trainer: Trainer, waiting: Sequence[Pending], records: list[dict], fresh: list[dict]) -> list[dict]:
    """Fetch and check the records of completed steps; appends each to `records` and `fresh`.

    Raises TrainingStopped at the first step that is not finite, or whose winner-error alarm exceeds the limit. The
    records before it are appended, in the second case its own too.
    """
    settings, stop = trainer.settings, None
    try:
        fetched = trainer.fetch(waiting)
    except TrainingStopped as stopped:
        fetched, stop = list(stopped.records), stopped
    for record in fetched:
        records.append(record)
        fresh.append(record)
        record["winner_alarm"] = winner_alarm(records)
        if record["winner_alarm"] > settings.winner_error_collapse:
            raise TrainingStopped(
                f"the winner's error is {record['winner_alarm']:.3f} above the reference's at step {record['step']} "
                f"(limit {settings.winner_error_collapse}): the model is collapsing. Training stopped, the last good "
                "adapter is kept. Lower the learning rate, raise beta, or take fewer steps."
            )
    if stop is not None:
        raise stop
    return fetched


def winner_alarm(records: list[dict]) -> float:
    """Mean winner error above the reference's over the last 20 steps; steps before the first count as zero."""
    return sum(r["winner_error"] for r in records[-ALARM_WINDOW:]) / ALARM_WINDOW


def training_seed(seed: int, round_index: int) -> int:
    """Seed of the training of one round, derived from the seed of the run."""
    return derive_seed(seed, 77, round_index)
