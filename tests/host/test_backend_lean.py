"""Memory that training keeps for backward on ComfyUI's layers: less, with equal gradients, also for cast weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from native_models import PROMPTS, noise, random_model
from torch.autograd.graph import saved_tensors_hooks

from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.memory import frozen_layers as module
from dreambooth_dpo.dpo_core.training.memory.frozen_layers import lean
from dreambooth_dpo.dpo_core.training.memory.levels import at_level
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")
BF16, FP32 = torch.bfloat16, torch.float32


@pytest.fixture(scope="module")
def text_encoder(comfyui: Path):
    return native_toybox()[1]


def trained(backend: ComfyTextToImage, adapter: Adapter, level: str | None) -> tuple[list[torch.Tensor], int]:
    """Gradients of the adapter, and the bytes that forward kept; level None: ComfyUI's layers unchanged."""
    latents, sigmas = noise(2, *backend.latent_shape, seed=6), backend.model_sampling.sigmas[[2, 7]].clone()
    cond, found = backend.encode_prompts(PROMPTS[:2]), {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    for p in adapter.parameters():
        p.grad = None
    with at_level(backend.denoiser, level) if level else lean(torch.nn.Module()), adapter.attached():
        with saved_tensors_hooks(note, lambda t: t):
            raw = backend.predict(latents, sigmas, cond)
        raw.square().mean().backward()
    return [p.grad.clone() for p in adapter.parameters()], sum(s.nbytes() for s in found.values())


@pytest.mark.parametrize(
    ("kind", "model_type", "dtype", "compute", "share"),
    [
        ("sd", "EPS", FP32, None, 0.8),
        ("sd", "EPS", BF16, FP32, 0.8),
        ("sd", "EPS", BF16, None, 0.8),
        ("sdxl", "EPS", FP32, None, 0.9),
        ("flux", "FLUX", FP32, None, 1.0),
    ],
)
def test_gradients_are_the_same_and_less_is_kept(text_encoder, monkeypatch, kind, model_type, dtype, compute, share):
    """Flux has no convolutions, group norms or GEGLU, so nothing changes there.

    Small tensors count here like large ones.
    """
    monkeypatch.setattr(module, "MIN_BYTES", 0)
    backend = ComfyTextToImage(
        random_model(kind, model_type, dtype, compute), text_encoder, None, 128, 128, "euler", "normal"
    )
    with backend.training():
        adapter = Adapter(backend.denoiser, AdapterSettings(rank=2, alpha=2.0, targets="attention"), seed=3)
        for p in adapter.parameters():
            p.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
        before = [dict(m.__dict__) for m in backend.denoiser.modules()]
        (plain, much), (found, little) = trained(backend, adapter, None), trained(backend, adapter, "fast")
        assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True)) and any(
            p.abs().max() > 0 for p in plain
        )
        assert little <= share * much
        assert [dict(m.__dict__).keys() for m in backend.denoiser.modules()] == [b.keys() for b in before]
