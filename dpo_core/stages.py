"""The stages between scored candidates and a trained adapter, one function each; the loop and the nodes call the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from .adapter import Adapter
from .axes import axis_scores, check_rule
from .errors import UserError
from .pair_data import PairData
from .pair_rules import PAIR_RULES
from .pairs import PairYield
from .progress import Progress, silent
from .protocols import TextToImage
from .run_folder import RunFolder
from .settings import PairSettings, TrainSettings
from .training import Trainer, TrainingStopped, train_round


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
    "window_<pairs_name>".
    `fidelity` and `alignment` name the scorers whose kept scores count; several of an axis are combined as `settings.combine` says.
    Raises UserError when a score is missing or the rule takes no combined ones, NoPairs when no pair is left; the candidates are kept.
    """
    axes = [(names,) if isinstance(names, str) else tuple(names) for names in (fidelity, alignment)]
    check_rule(settings, *axes)
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(set_name)])
    scores = [axis_scores(run, set_name, names, settings.combine) for names in axes]
    pairs, found = PAIR_RULES[settings.rule](prompt_of, *scores, settings)
    run.set_pairs(pairs_name, pairs)
    run.set_fact(f"yield_{pairs_name}", found.as_dict())
    run.set_fact(f"window_{pairs_name}", found.window)
    progress(f"pairs {pairs_name}", len(pairs), max(1, len(pairs)), note=found.sentence())
    if not pairs:
        raise NoPairs(_no_pairs(found, settings))
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


def pair_data(run: RunFolder, set_name: str, pairs_name: str, model: TextToImage) -> PairData:
    """Latents, conditioning and reward gaps of kept pairs."""
    pairs, candidates, latents = run.pairs(pairs_name), run.candidates(set_name), run.latents(set_name)
    winners, losers = [p.winner for p in pairs], [p.loser for p in pairs]
    cond, gaps = model.encode_prompts([candidates[w].prompt for w in winners]), torch.tensor([p.gap for p in pairs])
    return PairData(latents[winners], latents[losers], cond, gaps)


def train_pairs(
    run: RunFolder,
    round_index: int,
    model: TextToImage,
    adapter: Adapter,
    data: PairData,
    settings: TrainSettings,
    seed: int,
    progress: Progress = silent,
) -> None:
    """Train a round from the adapter as it stands, which becomes the reference; resumes from the round's last checkpoint in `run`.

    Must run inside `model.training()`. Raises TrainingStopped when a guard ends it: the adapter then holds the last good state.
    """
    adapter.freeze_reference()
    trainer = Trainer(model, adapter, data, settings, seed)
    state, first = f"training_{round_index}", 0
    if kept := run.load_state(state):
        trainer.load_state(kept[0])
        first = int(kept[1]["next_step"])

    def save(next_step: int, tensors: dict, records: list[dict]) -> None:
        run.add_training(round_index, records)
        run.save_state(state, tensors, {"next_step": str(next_step)})

    def tell(record: dict) -> None:
        progress(f"train round_{round_index}", record["step"] + 1, settings.steps, note=f"loss {record['loss']:.4f}")

    def tell_bank(done: int, of: int) -> None:
        progress(f"reference round_{round_index}", done, of)

    earlier = [r for r in run.training(round_index) if r["step"] < first]
    try:
        train_round(trainer, first, earlier, save, tell, tell_bank)
    except TrainingStopped as stop:
        run.add_training(round_index, stop.records)
        raise


def self_test(model: TextToImage, adapter: Adapter, data: PairData) -> float:
    """The gradient self-test on the first pair's winner, inside `model.training()`; returns its relative error. Raises UserError."""
    from .gradient_check import check_gradient

    return check_gradient(model, adapter, {k: v[:1] for k, v in data.cond.items()}, data.winners[:1])


def drawing(model: TextToImage, adapter: Adapter) -> AbstractContextManager:
    """Puts the adapter on for sampling, the way that the model allows."""
    return adapter.merged() if model.merges_adapter else adapter.attached()
