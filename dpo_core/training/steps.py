"""Training loop of one round: steps, metric checks, guards, and fallback to a lower memory level when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch

from ..errors import UserError
from ..seeds import derive_seed
from .memory.compile import compiled
from .memory.levels import at_level
from .self_test import self_test
from .trainer import Pending, Trainer, TrainingStopped

ALARM_WINDOW = 20
"""Steps over which the winner-error alarm averages."""

Save = Callable[[int, dict[str, torch.Tensor], list[dict]], None]


@dataclass
class _Progress:
    """How far a round is: its records, those not saved yet, and the last good state with the step that follows it."""

    records: list[dict]
    good: dict[str, torch.Tensor]
    next_step: int
    fresh: list[dict] = field(default_factory=list)

    def saved(self, next_step: int, state: dict[str, torch.Tensor]) -> None:
        self.good, self.next_step, self.fresh = state, next_step, []

    def go_back(self, trainer: Trainer) -> None:
        trainer.load_state(self.good)
        del self.records[len(self.records) - len(self.fresh) :]
        self.fresh = []


def train_steps(
    trainer: Trainer,
    first_step: int = 0,
    earlier: list[dict] | None = None,
    save: Save | None = None,
    tell: Callable[[dict], None] | None = None,
    tell_bank: Callable[[int, int], None] | None = None,
) -> list[dict]:
    """Run the trainer to its last step; `save(next_step, state, new_records)` is called every `checkpoint_every` steps
    and at the end.

    Before the first step, and at each further memory level, the gradient self-test has to pass. Numbers are looked at
    every `log_every` steps, and before a save in any case; `tell` gets the records then. `tell_bank(done, of)` is
    called while the reference bank is filled. Where the self-test or a step runs out of memory, the round goes on from
    its last good state at the next memory level (`trainer.level`). Raises UserError where gradients are wrong and where
    no level is left, and TrainingStopped on a loss that is not finite, or when the winner's error runs away
    (`winner_error_collapse`), at most `log_every` steps late: the adapter then holds the last saved state.
    """
    done = _Progress(list(earlier or []), trainer.state(), first_step)
    while not _at_one_level(trainer, done, save, tell, tell_bank):
        # Out of the handler: until then the failed step's tensors are held by its traceback.
        done.go_back(trainer)
        if trainer.model.device.type == "cuda":
            torch.cuda.empty_cache()
        logging.warning(
            "training ran out of memory: it goes on from step %d at memory level %r", done.next_step + 1, trainer.level
        )
    return done.records


def _at_one_level(
    trainer: Trainer, done: _Progress, save: Save | None, tell: Callable | None, tell_bank: Callable | None
) -> bool:
    """Train on to the last step; False where memory ran out and the trainer has given way to the next level."""
    settings, model = trainer.settings, trainer.model
    try:
        # Compiled while the adapter's hooks are on: they become part of it.
        compiling = compiled(model.denoiser, model.device) if settings.compile else nullcontext()
        with at_level(model.denoiser, trainer.level, settings.compile):
            self_test(model, trainer.adapter, trainer.data, trainer.level)
            with trainer.adapter.attached(), compiling:
                trainer.fill_bank(tell_bank)
                _steps(trainer, done, save, tell)
        return True
    except TrainingStopped as stop:
        trainer.load_state(done.good)
        stop.records = done.fresh
        raise
    except torch.OutOfMemoryError as error:
        if trainer.give_way():
            return False
        trainer.load_state(done.good)
        raise UserError(
            f"training on {settings.batch_size} pairs at once does not fit into memory at the level {trainer.level!r}. Set memory to auto "
            "or low, train fewer pairs at once (batch_size; pairs_per_step in ComfyUI) and raise accumulation by the same factor, or "
            "train on smaller pictures. What was sampled and scored is kept."
        ) from error


def _steps(trainer: Trainer, done: _Progress, save: Save | None, tell: Callable | None) -> None:
    settings = trainer.settings
    waiting: list[Pending] = []
    for step in range(done.next_step, settings.steps):
        waiting.append(trainer.advance(step))
        saves = (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps
        if not saves and len(waiting) < settings.log_every:
            continue
        shown = _looked_through(trainer, waiting, done.records, done.fresh)
        waiting = []
        if saves:
            state, fresh = trainer.state(), done.fresh
            if save:
                save(step + 1, state, fresh)
            done.saved(step + 1, state)
        for record in shown if tell else ():
            tell(record)


def _looked_through(trainer: Trainer, waiting: Sequence[Pending], records: list[dict], fresh: list[dict]) -> list[dict]:
    """The records of done steps, appended to both lists one by one. Raises TrainingStopped at the first that is not
    finite, or whose alarm is beyond the limit; the records before it are appended, and in the second case it as
    well."""
    settings, stop = trainer.settings, None
    try:
        found = trainer.fetch(waiting)
    except TrainingStopped as stopped:
        found, stop = list(stopped.records), stopped
    for record in found:
        records.append(record)
        fresh.append(record)
        record["winner_alarm"] = winner_alarm(records)
        if record["winner_alarm"] > settings.winner_error_collapse:
            raise TrainingStopped(
                f"the winner's error is {record['winner_alarm']:.3f} above the reference's at step {record['step']} (limit "
                f"{settings.winner_error_collapse}): the model is collapsing. Training stopped, the last good adapter is kept. "
                "Lower the learning rate, raise beta, or take fewer steps."
            )
    if stop is not None:
        raise stop
    return found


def winner_alarm(records: list[dict]) -> float:
    """Mean winner error above the reference's over the last 20 steps (fewer at the start count as zero)."""
    return sum(r["winner_error"] for r in records[-ALARM_WINDOW:]) / ALARM_WINDOW


def training_seed(seed: int, round_index: int) -> int:
    return derive_seed(seed, 77, round_index)
