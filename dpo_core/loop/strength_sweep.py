"""The strength sweep of a run: draws, scores and judges an adapter at several strengths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..evaluation.strength import Sweep, judge
from ..json_values import to_json
from ..protocols import TextToImage
from ..run.folder import RunFolder
from ..training.adapter import Adapter

if TYPE_CHECKING:
    from .rounds import Loop


def scaled_state(state: Mapping[str, torch.Tensor], strength: float) -> dict[str, torch.Tensor]:
    """An adapter's state whose effect is `strength` times that of `state`."""
    return {name: tensor * strength if name.endswith(".up") else tensor for name, tensor in state.items()}


@contextmanager
def scaled(adapter: Adapter, strength: float) -> Iterator[None]:
    """Inside, the policy acts with `strength`; afterwards its own weights are restored in any case, bit for bit."""
    state = adapter.state()
    try:
        adapter.load(scaled_state(state, strength))
        yield
    finally:
        adapter.load(state)


def _forget_others(run: RunFolder, adapter: Adapter, names: Sequence[str]) -> None:
    """Remove the records of sets under these names that were drawn with another adapter."""
    digest = hashlib.sha256()
    for name, tensor in sorted(adapter.state().items()):
        digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    mark, kept = digest.hexdigest()[:16], run.fact("strength_adapters") or {}
    for name in names:
        if kept.get(name, mark) != mark:
            run.forget_set(name)
    run.set_fact("strength_adapters", {**kept, **dict.fromkeys(names, mark)})


@contextmanager
def _at_strength(loop: Loop, strength: float) -> Iterator[TextToImage]:
    with scaled(loop.adapter, strength), loop.adapted_model() as model:
        yield model


def sweep(loop: Loop, drawn: Mapping[float, str] | None = None) -> Sweep:
    """Draw, score and judge the current adapter at every strength of `settings.strength`; store the fact "strength".

    Does only what is missing. drawn: names of sets that already hold the images of some strengths; used where the sweep
    has as many seeds as evaluation.
    """
    settings = loop.settings
    # The gain is in units of the spread within prompts, which one image a prompt does not have.
    seeds = settings.strength.seeds_per_prompt or max(2, settings.evaluation.seeds_per_prompt)
    sets = {s: f"strength_{s:.2f}" for s in settings.strength.strengths}
    _forget_others(loop.run, loop.adapter, list(sets.values()))
    if seeds == settings.evaluation.seeds_per_prompt:
        sets |= {s: name for s, name in (drawn or {}).items() if s in sets}
    models = {name: _at_strength(loop, strength) for strength, name in sets.items()}
    measured = loop.held_out(seeds).measure(loop.run, models, loop.progress)
    found = judge(measured, sets, settings.stop, settings.evaluation.bootstrap)
    loop.run.set_fact("strength", to_json(found))
    return found


def sweep_kept(loop: Loop, kept: int) -> None:
    """Run the sweep at a run's end, with the adapter of round `kept`; strengths 0 and 1 reuse the run's evaluations.

    Where the original is kept (0), the best round that was tried is swept instead: its LoRA is written too, and may
    help at a lower strength.
    """
    swept = kept or (loop.run.fact("kept") or {}).get("best", 0)
    if not swept:
        words = (
            "Keep the original (strength 0): no round was measured, so there is no LoRA to try at several strengths."
        )
        loop.run.set_fact("strength", to_json(Sweep((), 0.0, words)))
        return
    state = loop.adapter.state()
    try:
        loop.adapter.load(loop.run.load_state(f"adapter_{swept}")[0])
        found = sweep(loop, {0.0: "evaluation_0", 1.0: f"evaluation_{swept}"})
    finally:
        loop.adapter.load(state)
    if not kept:
        tried = f"Of round {swept}, which was not kept (its LoRA is in the run folder, as tried_round_{swept}): "
        loop.run.set_fact("strength", to_json(replace(found, words=tried + found.words)))
