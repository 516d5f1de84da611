"""Helpers of tests of the ComfyUI backend: tiny random MODELs of several kinds, and checks for hooks.

Imports comfy only inside functions: the tests request the `comfyui` fixture first.
"""

from __future__ import annotations

from typing import Any

import torch

from dreambooth_dpo.dpo_core.backends.comfyui import LiveAdapter
from dreambooth_dpo.dpo_core.backends.comfyui.random_models import random_model as random_model
from dreambooth_dpo.dpo_core.settings import AdapterSettings, SamplingSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter

PROMPTS = [
    "a red robot on the grass",
    "a blue bear in the snow, wearing a pink hat",
    "a photo of a green bottle",
    "a yellow robot at night",
]
LONG = " ".join(["red"] * 20 + ["blue"] * 10)
"""A prompt of two sections of the toybox's text encoder."""
DRAWING = SamplingSettings(steps=4, guidance=3.0, width=64, height=64)
ADAPTER = AdapterSettings(rank=4, alpha=2.0)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def adapter_state(adapter: Adapter, scale: float = 0.05) -> dict[str, torch.Tensor]:
    """The adapter's weights with a random B, so that it changes predictions."""
    generator = torch.Generator().manual_seed(9)
    state = adapter.state()
    return {k: v.normal_(0, scale, generator=generator) if k.endswith("up") else v for k, v in state.items()}


def random_live(model: Any, settings: AdapterSettings = ADAPTER) -> LiveAdapter:
    with torch.inference_mode(False):
        return LiveAdapter(adapter_state(Adapter(model.model.diffusion_model, settings)), settings)


def left_behind(model: Any) -> list[str]:
    """Modules of a MODEL that have a hook or a replaced forward."""
    marks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        n
        for n, m in model.model.named_modules()
        if "forward" in vars(m) or any(len(getattr(m, mark)) for mark in marks)
    ]


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether two tensors are equal bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def furthest(left: torch.Tensor, right: torch.Tensor) -> float:
    assert left.shape == right.shape
    return float((left - right).abs().max())


def users_lora(model) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 on the first layer of the UNet's attention, as kohya names it."""
    state, tensors = model.model.diffusion_model.state_dict(), {}
    layer = next(k for k in state if k.endswith("attn1.to_q.weight"))
    named = {f"lora_unet_{layer.removesuffix('.weight').replace('.', '_')}": state[layer].shape}
    for key, shape in named.items():
        tensors[f"{key}.lora_up.weight"] = noise(shape[0], 2, seed=1)
        tensors[f"{key}.lora_down.weight"] = noise(2, shape[1], seed=2)
    return tensors
