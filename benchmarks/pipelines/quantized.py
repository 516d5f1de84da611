"""Checks of quantized bases: the gradient against a model of the dequantized weights, memory levels, the LoRA file."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from ...dpo_core.backends.diffusers.loading import Model
from ...dpo_core.backends.diffusers.pipelines import component
from ...dpo_core.backends.diffusers.quantized import quantize, raw_parts
from ...dpo_core.training.adapter import Adapter
from ...dpo_core.training.memory.levels import at_level
from ..common.device_stand_in import spoiled
from .check import ADAPTER, PROMPTS, gradients, lora_loaded, model_of, settings
from .tiny import tiny

CLASSES = ("StableDiffusionXLPipeline", "FluxPipeline", "ZImagePipeline", "QwenImagePipeline")
"""The classes that the command checks unless it is given others: a UNet and three transformers."""


class QuantizedRow(NamedTuple):
    """A row of the table."""

    size: float
    """Bytes of the quantized linear layers, with their scales, of those in float32."""
    weights: float
    """Distance of the dequantized weights from the unquantized ones, of their norm."""
    gradient: float
    """Distance of the adapter's gradient from that on the dequantized weights, of its norm."""
    stream: float
    """The same for the level "stream" on a device stand-in against the level "fast"."""
    levels: dict[str, float]
    """Relative error of the gradient at each memory level against differences of the loss."""
    lora: float
    """The prediction with the LoRA file in `load_lora_weights` against the live adapter, of the adapter's effect."""


def quantized_model(name: str, kind: str) -> Model:
    """A tiny model of a pipeline class on the CPU, quantized."""
    pipe = tiny(name)
    quantize(getattr(pipe, component(pipe)), kind, torch.device("cpu"))
    return model_of(pipe)


def dequantized(weight: torch.Tensor) -> torch.Tensor:
    """The values [out, in] that a quantized weight stands for; any other weight unchanged."""
    if (state := getattr(weight, "quant_state", None)) is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, state)
    return weight.dequantize() if hasattr(weight, "__tensor_flatten__") else weight.data


def linear_layers(denoiser: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)}


def twin(name: str, quantized: Model) -> tuple[Model, float]:
    """(the plain model with the dequantized weights, the distance of these from its own ones, of their norm)."""
    pipe = tiny(name)
    own, given = linear_layers(getattr(pipe, component(pipe))), linear_layers(quantized.denoiser)
    apart = norm = 0.0
    for layer, module in own.items():
        value = dequantized(given[layer].weight).detach()
        apart += float((value - module.weight).detach().square().sum())
        norm += float(module.weight.detach().square().sum())
        module.weight = nn.Parameter(value, requires_grad=False)
    return model_of(pipe), (apart / norm) ** 0.5


def _size(denoiser: nn.Module) -> float:
    """Bytes of the linear layers' weights, of those in float32."""
    weights = [module.weight for module in linear_layers(denoiser).values()]
    plain = sum(4 * dequantized(weight).numel() for weight in weights)
    return sum(part.nbytes for weight in weights for part in raw_parts(weight)) / plain


def gradient(model: Model, level: str = "fast", mover: Any = None) -> torch.Tensor:
    """The gradient [weights] of all of an adapter's weights, for two prompts and a mean squared prediction."""
    adapter = Adapter(model.denoiser, ADAPTER)
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in adapter.policy.values():
            layer.up.copy_(torch.randn(layer.up.shape, generator=draws) * 0.02)
    cond = model.encode_prompts(PROMPTS[:2])
    x, times = (
        torch.randn(2, *model.latent_shape(settings(model)), generator=draws),
        model.times_at(torch.tensor([0.4, 0.8])),
    )
    with at_level(model.denoiser, level, mover=mover), adapter.attached():
        loss = model.predict(x, times, cond).square().mean()
        found = torch.autograd.grad(loss, adapter.parameters(), allow_unused=True)
    return torch.cat(
        [torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(adapter.parameters(), found, strict=True)]
    )


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def quantized_row(name: str, kind: str) -> QuantizedRow:
    model = quantized_model(name, kind)
    plain, weights = twin(name, model)
    fast = gradient(model)
    with spoiled(model.denoiser) as mover:
        streamed = gradient(model, "stream", mover)
    apart = _apart(fast, gradient(plain))
    return QuantizedRow(
        _size(model.denoiser), weights, apart, _apart(streamed, fast), gradients(model), lora_loaded(model)
    )
