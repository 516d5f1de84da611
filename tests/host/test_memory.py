"""Predicted memory of the host's models: full sizes without data, a tiny real step, what stays as it was."""

from __future__ import annotations

import pytest
import torch

from dreambooth_dpo.benchmarks.families.zoo import build as tiny
from dreambooth_dpo.benchmarks.memory.live import live_peak
from dreambooth_dpo.benchmarks.memory.models import MODELS, build, trainer_of, training
from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage
from dreambooth_dpo.dpo_core.training.memory.fit import starting_level
from dreambooth_dpo.dpo_core.training.memory.levels import LEVELS
from dreambooth_dpo.dpo_core.training.memory.predict import predict_step

pytestmark = pytest.mark.usefixtures("comfyui")
WIDE = {"n_layers": 5}
"""More layers than the zoo's, so that a prediction runs fewer."""


@pytest.mark.parametrize("name", ["sd15", "klein4", "zimage", "qwen"])
def test_full_size_models_have_their_weights(name: str):
    model = build(name, "bf16", 512)
    count = sum(p.numel() for p in model.denoiser.parameters())
    assert count == pytest.approx(MODELS[name]["parameters"], rel=0.01)


def test_eight_bits_save_the_weights_and_not_what_fast_keeps():
    """Z-Image, 6.15 billion weights: at `fast` autograd keeps every layer's weight in bf16 as well, at
    `checkpointing` those of one block."""
    peaks = {}
    for weights in ("bf16", "fp8"):
        model = build("zimage", weights, 512)
        with training(model):
            trainer = trainer_of(model, 1)
            peaks[weights] = {level: predict_step(trainer, level) for level in ("fast", "checkpointing")}
    saved = peaks["bf16"]["fast"].weights - peaks["fp8"]["fast"].weights
    assert saved == pytest.approx(6.15e9, rel=0.01)
    assert peaks["fp8"]["fast"].peak > peaks["bf16"]["fast"].peak
    less = peaks["bf16"]["checkpointing"].peak - peaks["fp8"]["checkpointing"].peak
    assert less == pytest.approx(saved, rel=0.1)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("name", "changed"), [("Z-Image", WIDE), ("Flux-dev", {"depth": 5}), ("SDXL", {}), ("Qwen-Image", {})]
)
def test_a_real_step_is_predicted(name: str, changed: dict, level: str):
    patcher, clip, vae, side = tiny(name, **changed)
    model = ComfyTextToImage(patcher, clip, vae, side, side, "euler", "simple")
    with model.training():
        trainer = trainer_of(model, 2, level)
        before = [(p, p.detach().clone()) for p in model.denoiser.parameters()]
        predicted = predict_step(trainer, level).peak
        after = list(model.denoiser.parameters())
        assert all(p is q and torch.equal(p, value) for (p, value), q in zip(before, after, strict=True))
        assert predicted == pytest.approx(live_peak(trainer, level), rel=0.1)


def test_the_node_asks_for_the_hosts_memory():
    patcher, clip, vae, side = tiny("Flux-dev")
    model = ComfyTextToImage(patcher, clip, vae, side, side, "euler", "simple")
    with model.training():
        free, total = model.memory_for_training()
        assert 1e8 < free <= total
        assert starting_level(trainer_of(model, 1)) == "fast", "on a CPU the level stays"
