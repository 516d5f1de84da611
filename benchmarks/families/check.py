"""One architecture: sampling, prompts of several lengths, gradients at every memory level, and the LoRA file."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from ...dpo_core.backends.comfyui import ComfyTextToImage, lora_prefixes
from ...dpo_core.errors import UserError
from ...dpo_core.settings import AdapterSettings, SamplingSettings
from ...dpo_core.training.adapter import Adapter
from ...dpo_core.training.gradient_check import check_gradient
from ...dpo_core.training.lora_files import lora_tensors
from ...dpo_core.training.memory.levels import LEVELS, at_level
from ..common.device_stand_in import StandIn, block_sizes, spoiled
from .zoo import NotHere, build, quantize

PROMPTS = ("a dog", "a photo of a sks dog on a beach at sunset, with a red hat", "a sks dog in the snow")
CLOSE = 1e-4
"""Largest relative difference that passes: rounding of float32 through a few layers."""
COLUMNS = ("draws", "prompts", *LEVELS, "hooks", "lora")


def _apart(one: torch.Tensor, other: torch.Tensor, base: torch.Tensor | float = 0.0) -> float:
    """Relative difference of two tensors, of their difference from `base`."""
    return float((one - other).norm() / (other - base).norm().clamp(min=1e-12))


def _draws(model: ComfyTextToImage, clip: Any, settings: SamplingSettings) -> float:
    """Largest difference between a batch of several prompts and the host's sampler with each prompt alone."""
    import comfy.sample

    drawn = model.sample(PROMPTS, range(len(PROMPTS)), settings)
    worst = 0.0
    for row, prompt in enumerate(PROMPTS):
        noise = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(row))
        conds = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (prompt, ""))
        given = (settings.steps, settings.guidance, "euler", "simple", *conds, torch.zeros_like(noise))
        with torch.no_grad():
            alone = comfy.sample.sample(model.patcher, noise, *given, disable_pbar=True, seed=row)
            alone = model.patcher.model.process_latent_in(alone.float())
        worst = max(worst, _apart(drawn[row : row + 1], alone))
    return worst


def _inputs(model: ComfyTextToImage, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(noised latents, targets, times, x0) of `count` samples, of fixed draws."""
    draws = torch.Generator().manual_seed(7)
    x0, noise = (torch.randn(count, *model.latent_shape, generator=draws) for _ in range(2))
    times = model.draw_timesteps(count, draws)
    return *model.noised(x0, noise, times), times, x0


def _prompts(model: ComfyTextToImage) -> float:
    """Largest difference of the prediction between a mixed batch and each prompt alone."""
    noised, _, times, _ = _inputs(model, len(PROMPTS))
    with torch.no_grad():
        together = model.predict(noised, times, model.encode_prompts(PROMPTS))
        alone = [
            model.predict(noised[i : i + 1], times[i : i + 1], model.encode_prompts([prompt]))
            for i, prompt in enumerate(PROMPTS)
        ]
    return max(_apart(together[i : i + 1], one) for i, one in enumerate(alone))


def _adapter(model: ComfyTextToImage, targets: str = "all") -> Adapter:
    """An adapter whose up matrices are not zero, so that every weight has a gradient."""
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2, targets=targets), device=model.device)
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in adapter.policy.values():
            layer.up.copy_(0.05 * torch.randn(layer.up.shape, generator=draws))
    return adapter


def _gradients(model: ComfyTextToImage, adapter: Adapter) -> list[torch.Tensor]:
    noised, target, times, _ = _inputs(model, 2)
    cond = model.encode_prompts(PROMPTS[:2])
    with adapter.attached():
        loss = (model.predict(noised, times, cond) - target).square().mean()
        found = torch.autograd.grad(loss, adapter.parameters(), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(adapter.parameters(), found, strict=True)]


@contextmanager
def _at(model: ComfyTextToImage, level: str) -> Iterator[StandIn | None]:
    """The level; "stream" on the device stand-in, where weights are NaN outside their turn."""
    if level != "stream":
        with at_level(model.denoiser, level):
            yield None
        return
    with spoiled(model.denoiser) as mover, at_level(model.denoiser, level, mover=mover):
        yield mover


def _levels(model: ComfyTextToImage, row: dict[str, Any]) -> None:
    """Self-test at each level, gradients equal to the first level's that passes it, and what "stream" holds."""
    adapter, first = _adapter(model), None
    cond, latents = model.encode_prompts(PROMPTS[:2]), _inputs(model, 2)[3]
    outside, blocks = block_sizes(model.denoiser)
    for level in LEVELS:
        try:
            with _at(model, level) as mover:
                error = check_gradient(model, adapter, cond, latents)
                found = torch.cat([g.flatten() for g in _gradients(model, adapter)])
        except UserError as refused:
            row[level] = str(refused)
            continue
        first = found if first is None else first
        apart = _apart(found, first)
        row[level] = {"self_test": error, "apart": apart} if apart < CLOSE else f"gradients differ by {apart:.1%}"
        if mover is not None and isinstance(row[level], dict):
            row[level] |= {"peak": mover.peak, "weights": outside + sum(blocks)}
            if mover.peak > outside + max(blocks):
                row[level] = f"{mover.peak} bytes on the device, more than {outside + max(blocks)}"


def _hooks(model: ComfyTextToImage) -> tuple[int, list[str]]:
    """Number of adapted layers, and the names of those that a forward does not call."""
    adapter, called = _adapter(model), set()
    handles = [m.register_forward_hook(lambda *_, n=n: called.add(n)) for n, m in adapter.layers.items()]
    noised, _, times, _ = _inputs(model, 1)
    with torch.no_grad():
        model.predict(noised, times, model.encode_prompts(PROMPTS[:1]))
    for handle in handles:
        handle.remove()
    return len(adapter.layers), sorted(set(adapter.layers) - called)


def _lora(model: ComfyTextToImage, patcher: Any, clip: Any, vae: Any, side: int, bypass: bool = False) -> float:
    """Difference between the live adapter's effect and that of its file by the host's own LoRA loader.

    bypass: by the loader that leaves the weights as they are.
    """
    import comfy.sd

    noised, _, times, _ = _inputs(model, 1)
    with model.training(), torch.no_grad():
        cond = model.encode_prompts(PROMPTS[:1])
        adapter = _adapter(model)
        base = model.predict(noised, times, cond)
        with adapter.attached():
            live = model.predict(noised, times, cond)
        tensors = lora_tensors(adapter, lora_prefixes(patcher.model, adapter.layers))
    load = comfy.sd.load_bypass_lora_for_models if bypass else comfy.sd.load_lora_for_models
    patched = load(patcher, None, tensors, 1.0, 0.0)[0]
    other = ComfyTextToImage(patched, clip, vae, side, side)
    with other.training(), torch.no_grad():
        loaded = other.predict(noised, times, other.encode_prompts(PROMPTS[:1]))
    return _apart(loaded, live, base)


def check(name: str, form: str | None = None) -> dict[str, Any]:
    """The row of one architecture: {column: figure or what went wrong}, or {"refused": the sentence}.

    form: quantized format of its weights.
    """
    row: dict[str, Any] = {"name": name}
    try:
        patcher, clip, vae, side = build(name)
        if form is not None:
            patcher, row["quantized"] = quantize(name, patcher, form)
    except NotHere as missing:
        return row | {"absent": str(missing)}
    settings = SamplingSettings(steps=2, guidance=3.0, candidates_per_prompt=2)
    try:
        model = ComfyTextToImage(patcher, clip, vae, side, side, "euler", "simple")
        model.encode_texts(PROMPTS)
    except UserError as refused:
        return row | {"refused": str(refused)}
    for column, part in (
        ("draws", lambda: _draws(model, clip, settings)),
        ("training", lambda: _training(model, row)),
        ("lora", lambda: _lora(model, patcher, clip, vae, side)),
        ("bypass", lambda: _lora(model, patcher, clip, vae, side, True) if form else None),
    ):
        try:
            if (found := part()) is not None:
                row[column] = found
        except UserError as refused:
            row[column] = str(refused)
        except Exception as error:  # one architecture that crashes must not end the table
            last = traceback.extract_tb(error.__traceback__)[-1]
            row[column] = f"{type(error).__name__}: {error} ({last.filename.rsplit('/', 1)[-1]}:{last.lineno})"
    return row


def _training(model: ComfyTextToImage, row: dict[str, Any]) -> None:
    with model.training():
        row["prompts"] = _prompts(model)
        layers, unused = _hooks(model)
        row["hooks"] = {"layers": layers, "unused": unused}
        _levels(model, row)


def passes(row: dict[str, Any]) -> bool:
    """Whether every column is right. An architecture that writes in place may lack the level "fast"."""
    with suppress(KeyError, TypeError):
        close = all(row[column] <= CLOSE for column in ("draws", "prompts", "lora"))
        return close and row["hooks"]["layers"] > 0 and all(isinstance(row[level], dict) for level in LEVELS[1:])
    return False
