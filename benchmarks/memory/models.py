"""MODELs of full size by ComfyUI's own classes: without data for predictions, with random weights for checks.

models.json names, for each model, the class in comfy.supported_models, the configuration with its source, and the shape
of an encoded prompt. Must run in a process that can import ComfyUI.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from ...dpo_core.backends.comfyui import ComfyTextToImage, host
from ...dpo_core.backends.comfyui import model as backend
from ...dpo_core.backends.comfyui.random_models import UNETS
from ...dpo_core.families import adapter_for, training_for
from ...dpo_core.settings import AdapterSettings, TrainSettings
from ...dpo_core.training.adapter import Adapter
from ...dpo_core.training.dataset import PairData
from ...dpo_core.training.trainer import Trainer
from ..families.zoo import StandInCLIP, StandInVAE

MODELS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
WEIGHTS = {
    "fp32": (torch.float32, None),
    "bf16": (torch.bfloat16, None),
    "fp8": (torch.float8_e4m3fn, torch.bfloat16),
}
"""(type of the weights, type that they are cast to in each layer; None: the same)."""


def build(name: str, weights: str, side: int, real: bool = False) -> ComfyTextToImage:
    """The model behind the TextToImage protocol, for pictures of `side` pixels.

    real: with random weights in memory; else the denoiser is on the meta device, without data. The fingerprint, which
    reads the weights, is left out.
    """
    import comfy.model_management as management
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    spec = MODELS[name]
    kept, compute = WEIGHTS[weights]
    config = UNETS[spec["unet"]] if "unet" in spec else spec["config"]
    with torch.inference_mode(False):
        settled = getattr(comfy.supported_models, spec["class"])(dict(config))
        settled.set_inference_dtype(kept, compute)
        model = settled.get_model({}, "", device=None if real else "meta")
        if real:
            _fill(model.diffusion_model)
        model.diffusion_model.eval().requires_grad_(False)
    patcher = ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())
    clip, vae = StandInCLIP(spec["prompt"]), StandInVAE(spec["factor"])
    with patch.object(backend, "fingerprint", return_value="random"):
        return ComfyTextToImage(patcher, clip, vae, side, side, "euler", "simple")


@contextmanager
def training(model: ComfyTextToImage, real: bool = False) -> Iterator[None]:
    """`model.training()`; without data there is nothing to load, and the host's loader, which moves it, is left out."""
    with nullcontext() if real else patch.object(host, "load"), model.training():
        yield


def _fill(denoiser: torch.nn.Module) -> None:
    """Random weights that keep the size of activations; those of one dimension are 1, biases 0."""
    draws = torch.Generator().manual_seed(1)
    for name, weight in denoiser.named_parameters():
        if weight.ndim > 1:
            spread = 1 / math.sqrt(max(1, weight[0].numel()))
            weight.data.copy_(torch.randn(weight.shape, generator=draws).mul_(spread))
        else:
            weight.data.fill_(0 if name.endswith("bias") else 1)


def trainer_of(model: ComfyTextToImage, pairs: int, level: str = "auto") -> Trainer:
    """A trainer on random latents, with the settings that are auto for the model's family.

    Call it inside `training`.
    """
    draws = torch.Generator().manual_seed(0)
    settings = training_for(TrainSettings(batch_size=pairs, memory=level), model.family, model.latent_shape)
    asked = AdapterSettings(rank=None, alpha=None, targets="auto")
    adapter = Adapter(model.denoiser, adapter_for(asked, model.family), device=torch.device("cpu"))
    winners, losers = (torch.randn(pairs, *model.latent_shape, generator=draws) for _ in range(2))
    data = PairData(winners, losers, model.encode_prompts(["a photo of a sks dog"] * pairs))
    return Trainer(model, adapter, data, settings, 0)
