"""Training on a MODEL as nodes do it: under inference mode, on patched models, interrupted and resumed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from native_models import (
    ADAPTER,
    DRAWING,
    PROMPTS,
    adapter_state,
    furthest,
    left_behind,
    noise,
    random_live,
    same,
    weights_of,
)
from torch import nn

from dreambooth_dpo.dpo_core.backends.comfyui import (
    ComfyTextToImage,
    lora_prefixes,
    with_live_adapter,
    without_live_adapter,
)
from dreambooth_dpo.dpo_core.progress import Progress, silent
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData
from dreambooth_dpo.dpo_core.training.lora_files import lora_tensors
from dreambooth_dpo.dpo_core.training.memory.checkpointing import gradient_checkpointing
from dreambooth_dpo.dpo_core.training.round import train_round
from dreambooth_dpo.dpo_core.training.self_test import self_test
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")

# Gradients clipped to below AdamW's epsilon: its division would turn the rounding of a gradient near zero into a whole
# step.
SETTINGS = TrainSettings(
    steps=4,
    batch_size=1,
    learning_rate=1e-2,
    warmup_steps=0,
    max_grad_norm=1e-6,
    checkpoint_every=2,
    winner_error_collapse=10,
)


@pytest.fixture
def native() -> ComfyTextToImage:
    """A new toybox for each test, because training may replace the weights' tensors."""
    return ComfyTextToImage(*native_toybox(), 64, 64)


def as_loaded_by_a_node(model) -> None:
    """Replace weights and buffers by tensors made under inference mode."""
    for part in model.model.modules():
        for name, weight in part._parameters.items():
            part._parameters[name] = None if weight is None else nn.Parameter(weight.clone(), requires_grad=False)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.clone()


def with_lora(model, strength: float = 1.0):
    """A clone with a LoRA of random weights, patched as by ComfyUI's own loader."""
    import comfy.sd

    adapter = Adapter(model.model.diffusion_model, ADAPTER, seed=3)
    adapter.load(adapter_state(adapter))
    tensors = lora_tensors(adapter, lora_prefixes(model.model, adapter.layers))
    return comfy.sd.load_lora_for_models(model, None, tensors, strength, 0)[0]


def train(
    backend: ComfyTextToImage,
    folder: Path,
    progress: Progress = silent,
    checkpointing: bool = False,
    settings: TrainSettings = SETTINGS,
) -> dict[str, torch.Tensor]:
    """Train as the training node does; returns the trained adapter's state."""
    with RunFolder(folder) as run, backend.training():
        adapter = Adapter(backend.denoiser, ADAPTER, seed=5, device=backend.device)
        latents = noise(6, 4, 16, 16, seed=6)
        data = PairData(latents[:3], latents[3:], backend.encode_prompts(PROMPTS[:3]))
        with gradient_checkpointing(backend.denoiser) if checkpointing else nullcontext():
            train_round(run, 0, backend, adapter, data, settings, 7, progress)
        return adapter.state()


def draw(backend: ComfyTextToImage) -> torch.Tensor:
    return backend.sample(PROMPTS[:2], [1, 2], DRAWING)


@pytest.fixture
def expected(tmp_path) -> dict[str, torch.Tensor]:
    """The adapter after training without interruptions."""
    return train(ComfyTextToImage(*native_toybox(), 64, 64), tmp_path / "plain")


def test_weights_made_under_inference_mode_train(native, expected, tmp_path):
    as_loaded_by_a_node(native.patcher)
    assert all(p.is_inference() for p in native.denoiser.parameters())
    weights, before, fingerprint = weights_of(native.patcher), draw(native), native.fingerprint
    assert same(train(native, tmp_path / "run"), expected)
    assert (
        torch.equal(draw(native), before)
        and same(weights_of(native.patcher), weights)
        and not left_behind(native.patcher)
    )
    assert ComfyTextToImage(native.patcher, native.clip, native.vae).fingerprint == fingerprint
    assert same(train(native, tmp_path / "again"), expected)


def test_prompts_encoded_beforehand_train(native, expected, tmp_path):
    """Prompts encoded before training, under inference mode, can be trained on."""
    native.encode_prompts(PROMPTS)
    assert same(train(native, tmp_path / "run"), expected)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_lora_on_the_model_is_part_of_policy_and_reference(native, expected, tmp_path, loaded):
    model, clip, vae = native.patcher, native.clip, native.vae
    weights, plain = weights_of(model), draw(native)
    backend = ComfyTextToImage(with_lora(model), clip, vae, 64, 64)
    as_loaded_by_a_node(model)
    before = draw(backend)
    assert furthest(before, plain) > 0.1
    if not loaded:
        draw(native)
    trained = train(backend, tmp_path / "run")
    assert len(backend.patcher.patches) == 129 and not same(trained, expected)
    assert torch.equal(draw(backend), before)
    assert torch.equal(draw(native), plain) and same(weights_of(model), weights)
    # The same as training a model that has the LoRA in its weights for good.
    baked = ComfyTextToImage(*native_toybox(), 64, 64)
    draw(backend)
    baked.denoiser.load_state_dict(backend.denoiser.state_dict())
    assert same(train(baked, tmp_path / "baked"), trained)


def test_training_works_while_another_model_carries_a_live_adapter(native, expected, tmp_path):
    """The node removes the live adapter for training; the loaded MODEL that carries it is offloaded."""
    riding = ComfyTextToImage(
        with_live_adapter(native.patcher, random_live(native.patcher)), native.clip, native.vae, 64, 64
    )
    before = draw(riding)
    assert same(train(ComfyTextToImage(without_live_adapter(riding.patcher), native.clip), tmp_path / "run"), expected)
    assert torch.equal(draw(riding), before)


def test_checkpointing_gives_the_same_adapter(native, expected, tmp_path):
    trained = train(native, tmp_path / "run", checkpointing=True)
    assert max(furthest(v, expected[k]) for k, v in trained.items()) < 1e-6
    assert not left_behind(native.patcher)


def test_the_gradient_self_test_passes(native):
    with native.training():
        adapter = Adapter(native.denoiser, ADAPTER, device=native.device)
        data = PairData(noise(1, 4, 16, 16), noise(1, 4, 16, 16, seed=1), native.encode_prompts(PROMPTS[:1]))
        assert self_test(native, adapter, data, "fast") < 0.005


def test_a_reference_bank_saves_reference_forwards(native, monkeypatch, tmp_path):
    """Seven steps over three pairs with one draw each need reference forwards in the first three steps only."""
    train(native, tmp_path / "tested")  # its self-test asks too, once
    passes, predict = [], native.predict

    def counted(*given):
        passes.append(torch.is_grad_enabled())
        return predict(*given)

    monkeypatch.setattr(native, "predict", counted)
    settings = SETTINGS.model_copy(update={"steps": 7, "reference_bank": 1})
    first = train(native, tmp_path / "bank", settings=settings)
    assert passes == [False] * 3 + [True] * 7

    def interrupt(stage: str, done: int, total: int, *_, **__) -> None:
        if stage.startswith("train") and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(native, tmp_path / "stopped", interrupt, settings=settings)
    passes.clear()
    assert same(train(native, tmp_path / "stopped", settings=settings), first)
    assert passes == [True] * 3, "resumed at the checkpoint after step 4, with the kept bank"
    passes.clear()
    assert not same(
        train(native, tmp_path / "without", settings=settings.model_copy(update={"reference_bank": 0})), first
    )
    assert sorted(passes) == [False] * 7 + [True] * 7


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_interrupt_leaves_no_hooks_and_training_resumes(native, tmp_path, checkpointing):
    """The interrupt comes after step 3, one step after the checkpoint."""
    import comfy.model_management as management

    as_loaded_by_a_node(native.patcher)
    weights, before = weights_of(native.patcher), draw(native)

    def cancel(_stage, done, _total, preview=None, note=""):
        if done == 3:
            raise management.InterruptProcessingException

    with pytest.raises(management.InterruptProcessingException):
        train(native, tmp_path / "run", cancel, checkpointing)
    assert not left_behind(native.patcher)
    assert torch.equal(draw(native), before) and same(weights_of(native.patcher), weights)
    with RunFolder(tmp_path / "run") as run:
        assert [r["step"] for r in run.training(0)] == [0, 1]
    steps = []
    resumed = train(native, tmp_path / "run", lambda _stage, done, *_, **__: steps.append(done), checkpointing)
    assert steps == [3, 4] and same(resumed, train(native, tmp_path / "unbroken", checkpointing=checkpointing))
    assert torch.equal(draw(native), before)


def test_training_restores_everything_that_it_changed(native):
    """Changes are undone also if the body raises; autograd is on only inside."""
    with pytest.raises(ValueError, match="stop"), native.training():
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert not any(p.requires_grad or p.is_inference() for p in native.patcher.model.parameters())
        raise ValueError("stop")
    assert torch.is_inference_mode_enabled() and not left_behind(native.patcher)
