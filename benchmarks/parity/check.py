"""One family: a round headless and in ComfyUI from one tiny checkpoint, and how far the two are apart."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...dpo_core.run.folder import RunFolder
from ...dpo_core.training.lora_export import Part
from ...dpo_core.training.objectives import denoising_error
from ...dpo_core.training.times import draw_times
from .checkpoint import held_by_both
from .families import FAMILIES
from .sides import Side, headless, hosted, places, same_start, shift_of

LIMITS = {"drawn": 1e-4, "pixels": 2, "error": 1e-4, "loss": 1e-3, "adapter": 1e-2}
"""Largest differences that pass; see `row` for what they are of."""
SET = "round_0"
STEPS = 4


def row(name: str, off: float = 0.0) -> dict[str, Any]:
    """The figures of one family. Needs comfy in this process.

    drawn: latents, of the largest value. pixels: of a decoded picture, 0 to 255. scores: of their spread. pairs: their
    number, or None where the two sides chose others. error: denoising errors of the candidates without an adapter.
    adapter: weight changes after `steps` steps, of their norm; loss: of these steps, absolute, None for a single one,
    whose loss is log 2 in any case. fused: whether ComfyUI has layers in one that diffusers has as several. start:
    whether both drew the same first weights; else diffusers' were copied. shift: mu of the sigmas' shift, where the
    pipeline takes it from the size of the picture. values: whether both are one entry of dpo_core/families.json.

    off: is added to ComfyUI's shift, to see the figures fail. Raises ValueError where the adapters' layers differ.
    """
    family, both = FAMILIES[name], held_by_both(name)
    with tempfile.TemporaryDirectory() as folder:
        ours = headless(both, family, Path(folder) / "headless", STEPS)
        _draw(ours)
        shift = shift_of(both.pipe.scheduler)
        theirs = hosted(both, family, Path(folder) / "hosted", STEPS, None if shift is None else shift + off)
        _draw(theirs)
        found = places(both, list(theirs.loop.adapter.layers))
        if apart := _unlike_layers(ours, theirs, found):
            raise ValueError(f"the adapters have other layers: {apart}")
        figures = {**_candidates(ours.loop.run, theirs.loop.run), "error": _errors(ours, theirs)}
        figures |= {"shift": shift, "values": ours.family.name == theirs.family.name}
        if figures["pairs"] is not None:
            figures |= _training(ours, theirs, found)
        for side in (ours, theirs):
            side.loop.run.close()
    return figures


def _draw(side: Side) -> None:
    side.loop.begin(0)
    side.loop.candidates(0)
    side.loop.pair(0)


def _candidates(ours: RunFolder, theirs: RunFolder) -> dict[str, Any]:
    latents, others = ours.latents(SET), theirs.latents(SET)
    figures: dict[str, Any] = {
        "drawn": _apart(latents, others),
        "pixels": int(abs(ours.images(SET).astype(int) - theirs.images(SET).astype(int)).max()),
        "scores": max(
            float(abs(scores - theirs.score_array(SET, axis)).max() / scores.std())
            for axis in ("fidelity", "alignment")
            for scores in [ours.score_array(SET, axis)]
        ),
    }
    pairs, other_pairs = ([(p.winner, p.loser) for p in run.pairs(SET)] for run in (ours, theirs))
    return figures | {"pairs": len(pairs) if sorted(pairs) == sorted(other_pairs) else None}


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference of two tensors of equal size, of the largest value."""
    return float((one - other.reshape(one.shape)).abs().max() / one.abs().max())


def _errors(ours: Side, theirs: Side) -> float:
    """Largest relative difference of the candidates' denoising errors, with the times that training draws."""
    found = []
    for side in (ours, theirs):
        model, train = side.loop.model, side.loop.settings.train
        draws, latents = torch.Generator().manual_seed(5), side.loop.run.latents(SET)
        times = draw_times(model, len(latents), draws, train.time_sampling, train.time_shift)
        noise = torch.randn(latents.shape, generator=draws)
        with model.training(), torch.no_grad():
            cond = model.encode_prompts([c.prompt for c in side.loop.run.candidates(SET)])
            noised, target = model.noised(latents, noise, times)
            found.append(denoising_error(model.predict(noised, times, cond), target))
    return float(((found[0] - found[1]).abs() / found[0]).max())


def _unlike_layers(ours: Side, theirs: Side, found: Mapping[str, tuple[Part, ...]]) -> list[str]:
    """Names of adapted layers of one side that the other has not."""
    here, there = set(ours.loop.adapter.layers), set(theirs.loop.adapter.layers)
    placed = {part.name for parts in found.values() for part in parts}
    return sorted((here ^ placed) | (there - found.keys()))


def _training(ours: Side, theirs: Side, found: Mapping[str, tuple[Part, ...]]) -> dict[str, Any]:
    """Train both. A fused layer has one A where its parts have one each: then only the first step can be equal."""
    fused = any(part.rows is not None for parts in found.values() for part in parts)
    steps = 1 if fused else STEPS
    start = same_start(theirs.loop.adapter, ours.loop.adapter, found)
    for side in (ours, theirs):
        train = side.loop.settings.train.model_copy(update={"steps": steps, "checkpoint_every": steps})
        replace(side.loop, settings=side.loop.settings.model_copy(update={"train": train})).train(0)
    losses = [[record["loss"] for record in side.loop.run.training(0)] for side in (ours, theirs)]
    loss = max(abs(one - other) for one, other in zip(*losses, strict=True)) if steps > 1 else None
    apart = _weights_apart(ours, theirs, found)
    return {"loss": loss, "adapter": apart, "steps": steps, "fused": fused, "start": start}


@torch.no_grad()
def _weights_apart(ours: Side, theirs: Side, found: Mapping[str, tuple[Part, ...]]) -> float:
    """Norm of the difference of all weight changes, of the norm of ComfyUI's."""
    gap = norm = 0.0
    for layer, parts in found.items():
        whole = theirs.loop.adapter.policy[layer].weight_change().flatten(1)
        norm += float(whole.square().sum())
        for part in parts:
            own = ours.loop.adapter.policy[part.name].weight_change().flatten(1)
            gap += float((own - (whole if part.rows is None else whole[part.rows])).square().sum())
    return (gap / norm) ** 0.5


def passes(figures: Mapping[str, Any]) -> bool:
    """Whether every figure is within its limit, and both sides chose the same pairs and took the same values."""
    if not (figures.get("pairs") and figures.get("values")):
        return False
    return all(figures[name] is None or figures[name] <= limit for name, limit in LIMITS.items())
