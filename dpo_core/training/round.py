"""One round of training, whole: resume, gradient self-test, steps, fallback where memory runs out, and what is kept of
it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..progress import Progress, silent
from ..protocols import TextToImage
from ..run.folder import RunFolder
from ..settings import TrainSettings
from .adapter import Adapter
from .dataset import PairData
from .self_test import passed
from .steps import train_steps
from .trainer import Trainer, TrainingStopped


def train_round(
    run: RunFolder,
    round_index: int,
    model: TextToImage,
    adapter: Adapter,
    data: PairData,
    settings: TrainSettings,
    seed: int,
    progress: Progress = silent,
    watch: Callable[[dict], None] | None = None,
) -> str | None:
    """One round of training from the adapter as it stands, which becomes the reference; returns why a guard ended it,
    or None.

    A finished round is read back; one that was stopped resumes from its last checkpoint in `run`. Else: gradient
    self-test, steps, fallback to a lower memory level where memory runs out (see `train_steps`). The result is kept as
    the state "adapter_<round_index + 1>", and why a guard ended it as the fact "stopped". The memory level that `auto`
    has found is the fact "memory", and the next round begins there. Must run inside `model.training()`. `watch` gets
    the record of every step, from the round's first on. Raises UserError where gradients are wrong or no memory level
    fits.
    """
    name = f"adapter_{round_index + 1}"
    if kept := run.load_state(name):
        adapter.load(kept[0])
        return stop_reason(run, round_index)
    adapter.freeze_reference()
    trainer, reason = Trainer(model, adapter, data, settings, seed), None
    try:
        _remaining_steps(run, round_index, trainer, progress, watch)
    except TrainingStopped as stop:
        reason = str(stop)
        logging.warning("DreamBooth DPO: %s", reason)
    # The fact first: where the adapter is kept, it is known whether training went to its end.
    run.set_fact("stopped", {"round": round_index, "reason": reason} if reason else None)
    run.save_state(name, adapter.state())
    run.state_path(f"training_{round_index}").unlink(missing_ok=True)
    return reason


def stop_reason(run: RunFolder, round_index: int) -> str | None:
    """Why this round's training, or the loop in this round, stopped before its end; None where it did not."""
    stopped = run.fact("stopped")
    if isinstance(stopped, str):  # node trainings of version 0.1 have one round
        return stopped
    return stopped["reason"] if stopped and stopped["round"] == round_index else None


def _remaining_steps(
    run: RunFolder, round_index: int, trainer: Trainer, progress: Progress, watch: Callable[[dict], None] | None
) -> None:
    """The steps that are missing.

    Raises TrainingStopped when a guard ends them: the adapter then holds the last good state.
    """
    model, settings = trainer.model, trainer.settings
    if settings.memory == "auto" and not settings.compile:
        trainer.level = str(run.fact("memory") or trainer.level)
    state, first = f"training_{round_index}", 0
    if kept := run.load_state(state):
        trainer.load_state(kept[0])
        first = int(kept[1]["next_step"])

    def save(next_step: int, tensors: dict, records: list[dict]) -> None:
        run.add_training(round_index, records)
        run.save_state(state, tensors, {"next_step": str(next_step)})

    def tell(record: dict) -> None:
        progress(f"train round_{round_index}", record["step"] + 1, settings.steps, note=f"loss {record['loss']:.4f}")
        if watch:
            watch(record)

    def tell_bank(done: int, of: int) -> None:
        progress(f"reference round_{round_index}", done, of)

    earlier = [r for r in run.training(round_index) if r["step"] < first]
    for record in earlier if watch else ():
        watch(record)
    try:
        train_steps(trainer, first, earlier, save, tell, tell_bank)
    except TrainingStopped as stop:
        run.add_training(round_index, stop.records)
        raise
    finally:
        run.set_fact("memory", trainer.level)
        if (error := passed(model, trainer.adapter, trainer.level)) is not None:
            found = {"precision": model.precision, "level": trainer.level, "relative_error": error}
            run.set_fact("self_test", {"denoiser": type(model.denoiser).__name__, "device": model.device.type, **found})
