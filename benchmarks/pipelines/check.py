"""Checks of each pipeline class: drawing, training at every memory level, and its LoRA in diffusers' loader."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...dpo_core.backends.diffusers.loading import Model
from ...dpo_core.backends.diffusers.model import DiffusersTextToImage
from ...dpo_core.backends.diffusers.pipeline_model import EMBEDDED_GUIDANCE, PipelineTextToImage
from ...dpo_core.backends.diffusers.pipelines import from_tokens, guidance_arguments, patch_size
from ...dpo_core.settings import AdapterSettings, SamplingSettings
from ...dpo_core.training.adapter import Adapter
from ...dpo_core.training.dataset import PairData
from ...dpo_core.training.gradient_check import check_gradient
from ...dpo_core.training.lora_files import save_lora
from ...dpo_core.training.memory.levels import LEVELS, at_level
from .tiny import SIDE, tiny

PROMPTS = ("a sks robot on snow", "a sks robot in a forest at night", "a sks robot on snow")
ADAPTER = AdapterSettings(rank=4, alpha=4.0, targets="all")


class Row(NamedTuple):
    """A row of the table; differences are relative to the largest value."""

    drawn: float
    """Latents of this program against those of the pipeline's own call."""
    decoded: int
    """Largest difference of a pixel, 0..255."""
    levels: dict[str, float]
    """Relative error of the gradient at each memory level."""
    lora: float
    """The prediction with the LoRA file in `load_lora_weights` against the live adapter, of the adapter's effect."""


def model_of(pipe: Any, precision: str = "fp32") -> Model:
    if type(pipe).__name__ == "StableDiffusionPipeline":
        return DiffusersTextToImage(pipe, precision)
    return PipelineTextToImage(pipe, precision, SIDE, SIDE)


def settings(model: Model, steps: int = 3) -> SamplingSettings:
    """With classifier-free guidance where the class has it."""
    driven = getattr(model, "driven", None)
    guidance = 1.0 if driven is not None and driven.cfg is None else 3.0
    return SamplingSettings(steps=steps, guidance=guidance, width=SIDE, height=SIDE, batch_size=4)


def drawn_by_pipeline(model: Model, prompt: str, seed: int) -> tuple[torch.Tensor, Any]:
    """(latents [C, h, w], picture float [H, W, 3] in 0..1) of the pipeline's own call with a prompt."""
    kept: dict[str, torch.Tensor] = {}

    def after(_pipe: Any, _step: int, _t: Any, tensors: dict) -> dict:
        kept.update(tensors)
        return {}

    pipe, drawing = model.pipe, settings(model)
    given: dict[str, Any] = {"guidance_scale": drawing.guidance}
    if isinstance(model, PipelineTextToImage):
        given = dict(guidance_arguments(pipe, model.driven, drawing.guidance, EMBEDDED_GUIDANCE))
        if model.driven.cfg == "true_cfg_scale":
            given["negative_prompt"] = [""]
    result = pipe(
        prompt=[prompt], width=SIDE, height=SIDE, num_inference_steps=drawing.steps, output_type="np",
        generator=[torch.Generator().manual_seed(seed)], callback_on_step_end=after, **given,
    )  # fmt: skip
    latents = kept["latents"].float()
    if isinstance(model, PipelineTextToImage):
        latents = from_tokens(latents, model.shape(), model.driven, patch_size(pipe))
    return latents[0], result.images[0]


def drawing(model: Model) -> tuple[float, int]:
    """(relative difference of latents, of pixels), drawn in one batch against one call for each prompt."""
    latents = model.sample(PROMPTS, [1, 2, 3], settings(model))
    pixels, apart, shades = model.decode(latents), 0.0, 0
    for i, prompt in enumerate(PROMPTS[:2]):
        own, picture = drawn_by_pipeline(model, prompt, i + 1)
        apart = max(apart, float((own - latents[i]).abs().max() / own.abs().max()))
        shades = max(shades, int(abs((picture * 255).round() - pixels[i].astype(float)).max()))
    return apart, shades


def data_of(model: Model, adapter: Adapter) -> PairData:
    """One pair of drawn latents of each of two prompts; the adapter's weights are made not to be zero."""
    latents = model.sample([PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1]], [1, 2, 3, 4], settings(model))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in adapter.policy.values():
            layer.up.copy_(torch.randn(layer.up.shape, generator=generator) * 0.02)
    return PairData(latents[::2], latents[1::2], model.encode_prompts(PROMPTS[:2]))


def gradients(model: Model) -> dict[str, float]:
    """Relative error of the gradient at each memory level; `check_gradient` raises UserError above its limit."""
    adapter, found = Adapter(model.denoiser, ADAPTER), {}
    data = data_of(model, adapter)
    cond = data.conditioning(torch.zeros(1, dtype=torch.int64), model.device)
    for level in LEVELS:
        with model.training(level == "stream"), at_level(model.denoiser, level):
            found[level] = check_gradient(model, adapter, cond, data.winners[:1])
    return found


def lora_loaded(model: Model) -> float:
    """Write the adapter, load the file by the pipeline's `load_lora_weights`, and compare predictions."""
    adapter = Adapter(model.denoiser, ADAPTER)
    data = data_of(model, adapter)
    cond, x = model.encode_prompts(PROMPTS[:2]), torch.cat([data.winners[:1], data.losers[1:]])
    times = model.times_at(torch.tensor([0.4, 0.8]))
    with torch.no_grad():
        plain = model.predict(x, times, cond)
        with adapter.attached():
            live = model.predict(x, times, cond)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "lora.safetensors"
            save_lora(adapter, path, {}, getattr(model, "component", "unet"))
            model.pipe.load_lora_weights(folder, weight_name=path.name)
            loaded = model.predict(x, times, cond)
            model.pipe.unload_lora_weights()
    return float((loaded - live).abs().max() / (live - plain).abs().max())


def row(name: str) -> Row:
    model = model_of(tiny(name))
    apart, shades = drawing(model)
    return Row(apart, shades, gradients(model), lora_loaded(model))
