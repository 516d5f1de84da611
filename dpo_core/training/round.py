"""One round of training: resume, gradient self-test, steps, fallback on out-of-memory, and saving the result."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..crew import ALONE, Crew
from ..progress import Progress, silent
from ..protocols import TextToImage
from ..run.folder import RunFolder
from ..settings import TrainSettings
from .adapter import Adapter
from .dataset import TrainingData
from .memory.fit import starting_level
from .pending import TrainingStopped
from .self_test import passed
from .steps import Show, train_steps
from .trainer import Trainer


def train_round(
    run: RunFolder,
    round_index: int,
    model: TextToImage,
    adapter: Adapter,
    data: TrainingData,
    settings: TrainSettings,
    seed: int,
    progress: Progress = silent,
    watch: Callable[[dict], None] | None = None,
    crew: Crew = ALONE,
    show: Show | None = None,
) -> str | None:
    """Train the adapter for one round; returns the reason if a guard stopped training, else None.

    The adapter's current weights become the reference. A finished round is loaded from `run`; an interrupted one
    resumes from its last checkpoint. Otherwise: gradient self-test, steps, and fallback to a lower memory level on
    out-of-memory (see `train_steps`). With `ema_decay` the adapter ends with the moving average of its weights: that is
    saved, evaluated, and the start and reference of the next round.

    Saved in `run`: the state "adapter_<round_index + 1>", the fact "stopped" (reason of a guard), and the fact "memory"
    (the memory level that `auto` ended at, where the next round starts). Must run inside `model.training()`. `watch`
    gets the record of every step, from the first of the round; `show` is called every `sample_every` steps
    (`train_steps`). crew: the processes that train together; each takes a part of every step's pairs. Raises UserError
    when gradients are wrong or when training does not fit into memory; where the device is too small by the prediction
    (memory/fit.py), before any step.
    """
    name = f"adapter_{round_index + 1}"
    if saved := run.load_state(name):
        adapter.load(saved[0])
        return stop_reason(run, round_index)
    adapter.freeze_reference()
    trainer, reason = Trainer(model, adapter, data, settings, seed, crew), None
    try:
        _remaining_steps(run, round_index, trainer, progress, watch, show)
    except TrainingStopped as stop:
        reason = str(stop)
        logging.warning("DreamBooth DPO: %s", reason)
    if trainer.average is not None:
        trainer.average.put(adapter)
    # The fact is written before the adapter: a saved adapter then always has a known reason.
    run.set_fact("stopped", {"round": round_index, "reason": reason} if reason else None)
    run.save_state(name, adapter.state())
    run.state_path(f"training_{round_index}").unlink(missing_ok=True)
    return reason


def stop_reason(run: RunFolder, round_index: int) -> str | None:
    """Why training or the loop stopped early in this round; None if it did not."""
    stopped = run.fact("stopped")
    if isinstance(stopped, str):  # written by the nodes of version 0.1, with one round
        return stopped
    return stopped["reason"] if stopped and stopped["round"] == round_index else None


def _remaining_steps(
    run: RunFolder,
    round_index: int,
    trainer: Trainer,
    progress: Progress,
    watch: Callable[[dict], None] | None,
    show: Show | None,
) -> None:
    """Run the steps that the run folder does not have yet.

    Raises TrainingStopped when a guard stops training; the adapter then holds the last good state.
    """
    model, settings = trainer.model, trainer.settings
    known = run.fact("memory") if settings.memory == "auto" and not settings.compile and model.whole else None
    trainer.level = str(known) if known else starting_level(trainer)
    state, first = f"training_{round_index}", 0
    if saved := run.load_state(state):
        trainer.load_state(saved[0])
        first = int(saved[1]["next_step"])

    def save(next_step: int, tensors: dict, records: list[dict]) -> None:
        run.add_training(round_index, records)
        run.save_state(state, tensors, {"next_step": str(next_step)})

    def tell(record: dict) -> None:
        progress(f"train round_{round_index}", record["step"] + 1, settings.steps, note=f"loss {record['loss']:.4f}")
        if watch:
            watch(record)

    def tell_cache(done: int, of: int) -> None:
        progress(f"reference round_{round_index}", done, of)

    earlier = [r for r in run.training(round_index) if r["step"] < first]
    if trainer.crew.size > 1:
        trainer.crew.train(trainer.job(first, earlier))
    for record in earlier if watch else ():
        watch(record)
    try:
        train_steps(trainer, first, earlier, save, tell, tell_cache, show)
    except TrainingStopped as stop:
        run.add_training(round_index, stop.records)
        raise
    finally:
        run.set_fact("memory", trainer.level)
        if (error := passed(model, trainer.adapter, trainer.level)) is not None:
            result = {"precision": model.precision, "level": trainer.level, "relative_error": error}
            run.set_fact(
                "self_test", {"denoiser": type(model.denoiser).__name__, "device": model.device.type, **result}
            )
