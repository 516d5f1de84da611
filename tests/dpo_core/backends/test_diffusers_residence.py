"""GPU residence: VAE and text encoder leave the GPU while the denoiser trains, and return when they are called.

Without a GPU, the moves of the parts are recorded while "off the GPU" and "home" are both the CPU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import SAMPLING, tiny_stable_diffusion

from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage

CPU = torch.device("cpu")


class Moves:
    """Records the devices that the parts of a pipeline are moved to, in order."""

    def __init__(self, model: DiffusersTextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[str, str]] = []
        for name in ("unet", "vae", "text_encoder"):
            part = getattr(model.pipe, name)
            monkeypatch.setattr(
                part,
                "to",
                lambda where, name=name: self.told.append((name, "home" if where is model.device else "aside")),
            )

    def since(self) -> list[tuple[str, str]]:
        found, self.told = self.told, []
        return found


@pytest.fixture
def on_shelf(monkeypatch: pytest.MonkeyPatch):
    model = DiffusersTextToImage(tiny_stable_diffusion())
    model._shelf, model.device = CPU, torch.device("cpu")  # two distinct objects: offload device and home device
    return model, Moves(model, monkeypatch)


def test_training_keeps_only_the_denoiser_on_the_gpu(on_shelf):
    model, moves = on_shelf
    with model.training():
        assert moves.since() == [("vae", "aside"), ("text_encoder", "aside")] and torch.is_grad_enabled()
    assert moves.since() == [], "they come back when they are asked, not before"


def test_parts_return_when_they_are_called(on_shelf):
    model, moves = on_shelf
    with model.training():
        moves.since()
        model.encode_prompts(["a sks robot"])
        assert moves.since() == [("text_encoder", "home")]
        model.encode_prompts(["a sks robot"])
        assert moves.since() == [], "known prompts ask nobody"
    latents = model.sample(["a sks robot"], [1], SAMPLING.model_copy(update={"guidance": 1.0}))
    assert moves.since() == []
    images = model.decode(latents)
    assert moves.since() == [("vae", "home")]
    model.encode_images(images)
    assert moves.since() == [("vae", "home")]


def test_on_a_cpu_nothing_is_moved(monkeypatch: pytest.MonkeyPatch):
    model = DiffusersTextToImage(tiny_stable_diffusion())
    moves = Moves(model, monkeypatch)
    with model.training():
        model.encode_prompts(["a sks robot"])
    model.decode(model.sample(["a sks robot"], [1], SAMPLING))
    assert moves.since() == [] and model._shelf is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks where a GPU's memory goes: needs one")
def test_a_real_gpu_holds_only_the_denoiser_during_training():
    pipe = tiny_stable_diffusion().to("cuda")
    model = DiffusersTextToImage(pipe)

    def devices() -> list[str]:
        return [next(getattr(pipe, name).parameters()).device.type for name in ("unet", "vae", "text_encoder")]

    before = model.decode(model.sample(["a sks robot"], [1], SAMPLING))
    with model.training():
        assert devices() == ["cuda", "cpu", "cpu"]
        assert model.encode_prompts(["another robot"])["encoder_hidden_states"].is_cuda and devices() == [
            "cuda",
            "cpu",
            "cuda",
        ]
    after = model.decode(model.sample(["a sks robot"], [1], SAMPLING))
    assert devices() == ["cuda", "cuda", "cuda"] and np.abs(before.astype(int) - after).max() <= 1
