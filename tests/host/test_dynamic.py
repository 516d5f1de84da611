"""Training and sampling where the host streams weights, on a simulation (tests/support/streamed.py) without a GPU."""

from __future__ import annotations

import contextlib

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
    random_model,
    same,
    weights_of,
)
from streamed import scratch_buffer, streamed

from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage, host, with_live_adapter
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.memory.levels import LEVELS, at_level
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")
KINDS = ("toybox", "flux")


@pytest.fixture(autouse=True)
def one_buffer(comfyui):
    with scratch_buffer() as used:
        yield used


def plain_model(kind: str):
    """A MODEL with the same weights at every call."""
    return native_toybox()[0] if kind == "toybox" else random_model("flux", model_type="FLUX")


def backend_of(model, kind: str) -> ComfyTextToImage:
    clip, vae = native_toybox()[1:] if kind == "toybox" else (None, None)
    backend = ComfyTextToImage(model, clip, vae, 64, 64)
    if kind == "flux":
        drawn = noise(1, 16, 128, seed=3)
        backend._entries = dict.fromkeys(PROMPTS, (drawn, {"pooled_output": noise(1, 128, seed=4)}))
    return backend


def gradients(backend: ComfyTextToImage, level: str) -> dict[str, torch.Tensor]:
    """Gradients of one squared error for all weights of an adapter with B not 0."""
    with backend.training():
        adapter = Adapter(backend.denoiser, ADAPTER, seed=5, device=backend.device)
        adapter.load(adapter_state(adapter))
        x0 = noise(2, *backend.latent_shape, seed=6)
        times = backend.draw_timesteps(2, torch.Generator().manual_seed(1))
        noised, target = backend.noised(x0, noise(*x0.shape, seed=7), times)
        with at_level(backend.denoiser, level), adapter.attached():
            loss = (backend.predict(noised, times, backend.encode_prompts(PROMPTS[:2])) - target).square().mean()
            loss.backward()
        return {f"{n}.{i}": p.grad for n, layer in adapter.policy.items() for i, p in enumerate(layer.parameters())}


def difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Largest relative difference between the gradients of a layer."""
    assert left.keys() == right.keys()
    return max(float((left[k] - right[k]).norm() / left[k].norm()) for k in left)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("system", ["dynamic", "low VRAM"])
def test_gradients_equal_those_without_streaming(system, kind, level, one_buffer, capsys):
    expected = gradients(backend_of(plain_model(kind), kind), level)
    assert not one_buffer
    again = (lambda: plain_model(kind)) if system == "dynamic" else None
    model = streamed(plain_model(kind), system == "dynamic", again)
    found = difference(expected, gradients(backend_of(model, kind), level))
    with capsys.disabled():
        print(f"\nstand-in {system}, {kind}, level {level}: largest relative difference of a gradient {found:.1e}")
    # The dynamic MODEL was trained on its plain copy, the other one through the buffer.
    assert bool(one_buffer) == (system == "low VRAM")
    assert found < 2e-5


@pytest.mark.parametrize("kind", KINDS)
def test_without_protection_streaming_corrupts_gradients(kind, monkeypatch):
    """Control test: without the protection, the simulated streaming corrupts gradients."""
    expected = gradients(backend_of(plain_model(kind), kind), "fast")
    monkeypatch.setattr(host, "plain_copy", lambda patcher: patcher)
    monkeypatch.setattr(host, "_own_casts", lambda _model: contextlib.nullcontext())
    for dynamic in (True, False):
        wrong = gradients(backend_of(streamed(plain_model(kind), dynamic), kind), "fast")
        assert difference(expected, wrong) > 0.05


def test_a_loader_that_cannot_be_called_again_is_refused():
    backend = backend_of(streamed(plain_model("toybox"), dynamic=True), "toybox")
    with (
        pytest.raises(UserError, match="dynamic VRAM.*Load it with Load Checkpoint.*--disable-dynamic-vram"),
        backend.training(),
    ):
        raise AssertionError("trained")


def test_a_live_adapter_draws_the_same_pictures():
    """Hooks act on a layer's output, wherever its weights are stored."""
    plain, live = plain_model("toybox"), random_live(plain_model("toybox"))
    expected = backend_of(with_live_adapter(plain, live), "toybox").sample(PROMPTS[:2], [1, 2], DRAWING)
    for dynamic in (True, False):
        model = streamed(plain_model("toybox"), dynamic, lambda: plain_model("toybox"))
        drawn = backend_of(with_live_adapter(model, live), "toybox").sample(PROMPTS[:2], [1, 2], DRAWING)
        assert torch.equal(drawn, expected)
        assert furthest(backend_of(model, "toybox").sample(PROMPTS[:2], [1, 2], DRAWING), expected) > 0.1


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_interrupt_leaves_no_hooks(dynamic):
    import comfy.model_management as management

    model = streamed(plain_model("toybox"), dynamic, lambda: plain_model("toybox"))
    backend = backend_of(model, "toybox")
    before, drawn = weights_of(model), backend.sample(PROMPTS[:2], [1, 2], DRAWING)
    functions = [list(getattr(m, "weight_function", ())) for m in model.model.modules()]
    with pytest.raises(KeyboardInterrupt), backend.training():
        inside = backend.patcher
        assert (inside is not model) == dynamic and getattr(management, "in_training", True)
        raise KeyboardInterrupt
    assert not getattr(management, "in_training", False)
    assert backend.patcher is model and backend.denoiser is model.model.diffusion_model
    assert all(loaded.model is model or loaded.model is not inside for loaded in management.current_loaded_models)
    assert not left_behind(model) and same(weights_of(model), before)
    assert [list(getattr(m, "weight_function", ())) for m in model.model.modules()] == functions
    assert torch.equal(backend.sample(PROMPTS[:2], [1, 2], DRAWING), drawn)
