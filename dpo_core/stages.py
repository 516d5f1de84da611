"""The stages between scored candidates and a trained adapter, one function each; the loop and the nodes call the same ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from .adapter import Adapter
from .axes import AXES, axis_scores
from .decisions import thumbs_of
from .errors import UserError
from .objectives import UNPAIRED
from .pair_data import PairData
from .pair_rules import PAIR_RULES
from .pairs import PairYield
from .picture_check import check_scores
from .progress import Progress, silent
from .protocols import TextToImage
from .run_folder import RunFolder
from .self_test import passed
from .settings import PairSettings, TrainSettings
from .trainer import Trainer, TrainingStopped
from .training import train_steps


class NoPairs(UserError):
    """The candidates of a round gave no pair."""


def build_pairs(
    run: RunFolder,
    set_name: str,
    settings: PairSettings,
    pairs_name: str,
    progress: Progress = silent,
    fidelity: str | Sequence[str] = "fidelity",
    alignment: str | Sequence[str] = "alignment",
) -> PairYield:
    """Pairs of a scored set by the pair rule, kept under `pairs_name`.

    Returns the yield, which is kept as the fact "yield_<pairs_name>"; the angles of the window, where the rule has one, are the fact
    "window_<pairs_name>". Where no pair is left, the fact "no_pairs_<pairs_name>" says why and what to do, see `check_pairs`.
    `fidelity` and `alignment` name the scorers whose kept scores count; several of an axis are combined as `settings.combine` says.
    Raises UserError when a score is missing, and where the scores of an axis do not vary (see check_scores).
    """
    axes = [(names,) if isinstance(names, str) else tuple(names) for names in (fidelity, alignment)]
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(set_name)])
    scores = [axis_scores(run, set_name, names, settings.combine) for names in axes]
    if settings.rule != "random":
        for axis, names, values in zip(AXES, axes, scores, strict=True):
            check_scores(values, prompt_of, axis, names)
    pairs, found = PAIR_RULES[settings.rule](prompt_of, *scores, settings)
    run.set_pairs(pairs_name, pairs)
    run.set_fact(f"yield_{pairs_name}", found.as_dict())
    run.set_fact(f"window_{pairs_name}", found.window)
    run.set_fact(f"no_pairs_{pairs_name}", None if pairs else _no_pairs(found, settings))
    progress(f"pairs {pairs_name}", len(pairs), max(1, len(pairs)), note=found.sentence())
    return found


def _no_pairs(found: PairYield, settings: PairSettings) -> str:
    """Why there is none, and what to do."""
    if not found.window:
        said, remedy = f"no pair is better by the rule {settings.rule}", "Lower the margin, take another rule"
    else:
        said = f"no pair fits the window {found.window[0]:g}..{found.window[1]:g} degrees"
        fixed = settings.window == "fixed"
        remedy = "Widen the window (angle_low, angle_high), lower the margin" if fixed else "Move steer, lower the margin"
    return f"{said}: {found.sentence()} {remedy}, or sample more candidates. The scored candidates are kept."


def check_pairs(run: RunFolder, pairs_name: str) -> None:
    """Raises NoPairs, which says why and what to do, where nothing is kept under `pairs_name`; the candidates are kept."""
    if not run.pairs(pairs_name):
        raise NoPairs(str(run.fact(f"no_pairs_{pairs_name}") or "no pair is left to train on. Let more of them in."))


def pair_data(run: RunFolder, set_name: str, pairs_name: str, model: TextToImage, objective: str = "dpo") -> PairData:
    """Latents, conditioning and reward gaps of kept pairs; for an unpaired objective, also of the candidates with thumbs on them.

    Raises NoPairs where there is none.
    """
    check_pairs(run, pairs_name)
    pairs, candidates, latents = run.pairs(pairs_name), run.candidates(set_name), run.latents(set_name)
    rows = [(p.winner, p.loser, 1.0, 1.0, p.gap) for p in pairs]
    thumbs = thumbs_of(run, pairs_name) if objective in UNPAIRED else {}
    if thumbs:
        rows = _with_thumbs(rows, thumbs)
    winners, losers = [row[0] for row in rows], [row[1] for row in rows]
    prompts = [candidates[w].prompt for w in winners]
    row_of = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    cond, gaps = model.encode_prompts(list(row_of)), torch.tensor([row[4] for row in rows])
    counts = torch.tensor([row[2:4] for row in rows]) if thumbs else None
    return PairData(latents[winners], latents[losers], cond, gaps, counts, torch.tensor([row_of[p] for p in prompts]))


def _with_thumbs(rows: list[tuple], thumbs: dict[int, str]) -> list[tuple]:
    """Rows (winner, loser, whether either counts, gap) in which a candidate with a thumb counts once, by it, and not by its pairs.

    Such a candidate has a row of its own, in which it also stands in for the partner that it has not.
    """
    rows = [(w, el, float(w not in thumbs), float(el not in thumbs), gap) for w, el, _, _, gap in rows]
    single = [(p, p, float(way == "up"), float(way == "down"), 0.0) for p, way in sorted(thumbs.items())]
    return [row for row in rows if row[2] or row[3]] + single


def drawing(model: TextToImage, adapter: Adapter) -> AbstractContextManager:
    """Puts the adapter on for sampling, the way that the model allows."""
    return adapter.merged() if model.merges_adapter else adapter.attached()


# --- training ---


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
    """One round of training from the adapter as it stands, which becomes the reference; returns why a guard ended it, or None.

    A finished round is read back; one that was stopped resumes from its last checkpoint in `run`. Else: gradient self-test, steps,
    fallback to a lower memory level where memory runs out (see `train_steps`). The result is kept as the state
    "adapter_<round_index + 1>", and why a guard ended it as the fact "stopped". The memory level that `auto` has found is the fact
    "memory", and the next round begins there. Must run inside `model.training()`. `watch` gets the record of every step, from the round's
    first on. Raises UserError where gradients are wrong or no memory level fits.
    """
    name = f"adapter_{round_index + 1}"
    if kept := run.load_state(name):
        adapter.load(kept[0])
        return stop_reason(run, round_index)
    reason = None
    try:
        _train(run, round_index, model, adapter, data, settings, seed, progress, watch)
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


def _train(
    run: RunFolder,
    round_index: int,
    model: TextToImage,
    adapter: Adapter,
    data: PairData,
    settings: TrainSettings,
    seed: int,
    progress: Progress,
    watch: Callable[[dict], None] | None,
) -> None:
    """The steps that are missing. Raises TrainingStopped when a guard ends them: the adapter then holds the last good state."""
    adapter.freeze_reference()
    trainer = Trainer(model, adapter, data, settings, seed)
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
        if (error := passed(model, adapter, trainer.level)) is not None:
            found = {"precision": model.precision, "level": trainer.level, "relative_error": error}
            run.set_fact("self_test", {"denoiser": type(model.denoiser).__name__, "device": model.device.type, **found})
