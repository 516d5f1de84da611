"""The ComfyUI backend: equal numbers to the diffusers backend, live adapters on a MODEL, and LoRA files."""

from __future__ import annotations

import gc
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
    random_model,
    same,
    weights_of,
)

from dreambooth_dpo.dpo_core.backends.comfyui import (
    ComfyTextToImage,
    LiveAdapter,
    live_adapter,
    lora_prefixes,
    with_live_adapter,
    without_live_adapter,
)
from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import AdapterSettings, TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData
from dreambooth_dpo.dpo_core.training.lora_files import load_tensors, lora_tensors, read_lora, write_lora
from dreambooth_dpo.dpo_core.training.objectives import denoising_error
from dreambooth_dpo.dpo_core.training.steps import train_steps
from dreambooth_dpo.dpo_core.training.trainer import Trainer
from dreambooth_dpo.toybox.models import weights_folder
from dreambooth_dpo.toybox.native import native_toybox
from dreambooth_dpo.toybox.run import toy_pipeline

pytestmark = pytest.mark.usefixtures("as_nodes_run")


@pytest.fixture(scope="module")
def toybox(comfyui: Path):
    """MODEL, CLIP and VAE of the toybox, made under inference mode as a node makes them."""
    with torch.inference_mode():
        return native_toybox()


@pytest.fixture(scope="module")
def twin() -> DiffusersTextToImage:
    return DiffusersTextToImage(toy_pipeline())


@pytest.fixture
def native(toybox) -> ComfyTextToImage:
    return ComfyTextToImage(*toybox, 64, 64)


def said(model) -> torch.Tensor:
    """The prediction of the denoised picture for a fixed noised latent, with the MODEL loaded by ComfyUI."""
    import comfy.model_management as management

    management.load_models_gpu([model])
    sigmas = model.get_model_object("model_sampling").sigmas[[20, 400, 800]]
    x = noise(3, 4, 16, 16) * (1 + sigmas**2).sqrt().view(-1, 1, 1, 1)
    return model.model.apply_model(x, sigmas, c_crossattn=noise(3, 24, 128, seed=1), transformer_options={})


def make_lora(model, settings: AdapterSettings = ADAPTER) -> dict[str, torch.Tensor]:
    """Tensors of a LoRA whose adapter differs from `random_live`'s."""
    with torch.inference_mode(False):
        adapter = Adapter(model.model.diffusion_model, settings, seed=3)
        adapter.load(adapter_state(adapter, 0.02))
        return lora_tensors(adapter, lora_prefixes(model.model, adapter.layers))


# --- against the diffusers backend ---


def test_errors_equal_those_of_diffusers(native, twin):
    """The noised latents of both differ by a factor of sqrt(1 + sigma^2).

    Measured: the errors differ by 2e-6.
    """
    x0, drawn = noise(16, 4, 16, 16), noise(16, 4, 16, 16, seed=1)
    errors = []
    for backend in (native, twin):
        times = backend.draw_timesteps(16, torch.Generator().manual_seed(3))
        noised, target = backend.noised(x0, drawn, times)
        errors.append(denoising_error(backend.predict(noised, times, backend.encode_prompts(PROMPTS * 4)), target))
    assert errors[1].min() < 0.02 and errors[1].max() > 1  # low and high noise levels
    assert furthest(*errors) < 1e-5


def test_training_gives_the_same_adapter_as_diffusers(native, twin):
    """Training on both backends ends with equal adapters.

    Gradients are clipped to below AdamW's epsilon, because its division would turn the rounding error of a gradient
    near zero into a whole step.
    Measured: 5e-7 of changes up to 0.027. With the usual clipping: 1e-4 relative, and 6 weights in a million off by
    more than 1e-5.
    """
    limits = {"max_grad_norm": 1e-6, "winner_error_collapse": 10}
    settings = TrainSettings(steps=3, batch_size=2, learning_rate=1e-2, schedule="constant", warmup_steps=0, **limits)
    winners, losers = noise(4, 4, 16, 16, seed=6), noise(4, 4, 16, 16, seed=7)
    with native.training():
        theirs = Adapter(twin.denoiser, ADAPTER)
        start = adapter_state(theirs)
        theirs.load(start)
        ours = Adapter(native.denoiser, ADAPTER, device=native.device)
        prefixes = lora_prefixes(native.patcher.model, ours.layers)
        load_tensors(ours, lora_tensors(theirs), "the same adapter", prefixes)
        records, ends = [], []
        for model, adapter in ((native, ours), (twin, theirs)):
            adapter.freeze_reference()
            data = PairData(winners.clone(), losers.clone(), model.encode_prompts(PROMPTS))
            records.append(train_steps(Trainer(model, adapter, data, settings, 7)))
        ends = lora_tensors(ours, prefixes), lora_tensors(theirs)
        changed = max(furthest(v, theirs.state()[k]) for k, v in start.items())
    assert ends[0].keys() == ends[1].keys() and len(ours.layers) == len(theirs.layers) == 129
    assert changed > 0.02
    assert max(furthest(v, ends[1][k]) for k, v in ends[0].items()) < 1e-5
    for ours_said, theirs_said in zip(*records, strict=True):
        assert ours_said == pytest.approx(theirs_said, rel=2e-3, abs=1e-6)


# --- live adapters on a MODEL ---


def test_a_fresh_adapter_leaves_the_prediction_bit_identical(toybox, native):
    before = said(toybox[0])
    with native.training():
        fresh = Adapter(native.denoiser, ADAPTER, device=native.device)
        riding = with_live_adapter(toybox[0], LiveAdapter(fresh.state(), ADAPTER))
    assert torch.equal(said(riding), before) and len(left_behind(riding)) == 129
    with native.training(), fresh.attached():
        times = native.draw_timesteps(4, torch.Generator().manual_seed(0))
        question = noise(4, 4, 16, 16), times, native.encode_prompts(PROMPTS)
        with torch.no_grad(), fresh.reference():
            reference = native.predict(*question)
        with torch.no_grad(), fresh.off():
            base = native.predict(*question)
        assert torch.equal(native.predict(*question), reference) and torch.equal(reference, base)


def test_a_live_adapter_acts_on_its_own_model_only(toybox):
    import comfy.model_management as management

    model = toybox[0]
    weights, before, live = weights_of(model), said(model), random_live(model)
    riding = with_live_adapter(model, live)
    assert live_adapter(riding) is live and live_adapter(model) is None
    changed = said(riding)
    assert furthest(changed, before) > 0.1 and len(left_behind(riding)) == 129
    assert torch.equal(said(model), before) and not left_behind(model)
    assert torch.equal(said(riding), changed)  # after loading it again
    assert (
        torch.equal(said(without_live_adapter(riding)), before) and live_adapter(without_live_adapter(riding)) is None
    )
    said(riding)
    management.unload_all_models()
    assert not left_behind(model) and same(weights_of(model), weights)


def test_a_patched_clone_applies_the_live_adapter_once(toybox):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    riding = with_live_adapter(toybox[0], random_live(toybox[0]))
    expected = said(riding)
    (clone,) = ModelSamplingDiscrete().patch(riding, "eps", False)  # of a loaded MODEL
    assert torch.equal(said(clone), expected)
    assert {len(m._forward_hooks) for m in clone.model.modules()} == {0, 1}
    assert torch.equal(said(with_live_adapter(clone, live_adapter(clone))), expected)  # replaced by an equal one
    assert torch.equal(said(riding), expected)


def test_a_new_live_adapter_replaces_the_old_one(toybox):
    """For ComfyUI both clones have the same weights and keys."""
    model = toybox[0]
    one, other = random_live(model), random_live(model, AdapterSettings(rank=2, alpha=2, targets="attention"))
    expected = said(with_live_adapter(model, other))
    riding = with_live_adapter(model, one)
    said(riding)
    replaced = with_live_adapter(riding, other)
    assert torch.equal(said(replaced), expected) and not torch.equal(said(riding), expected)


def test_deleting_a_clone_leaves_the_other_models_adapter(toybox, native):
    """ComfyUI ejects the injections of a MODEL that is deleted, and a clone of a loaded MODEL counts as injected."""
    made = [ComfyTextToImage(with_live_adapter(toybox[0], random_live(toybox[0])), *toybox[1:], 64, 64)]
    expected, hooks = made[0].sample(PROMPTS[:1], [1], DRAWING), []

    def clone_and_drop(_step, _steps, _denoised):
        made[0].patcher.clone()
        gc.collect()
        hooks.append(len(left_behind(made[0].patcher)))

    made[0].watch = clone_and_drop
    assert torch.equal(made[0].sample(PROMPTS[:1], [1], DRAWING), expected) and hooks == [129] * 4
    made.clear()
    gc.collect()
    assert not left_behind(toybox[0])
    assert furthest(native.sample(PROMPTS[:1], [1], DRAWING), expected) > 0.1


def test_an_adapter_of_another_model_is_refused(toybox):
    before, riding = said(toybox[0]), with_live_adapter(toybox[0], random_live(random_model()))
    with pytest.raises(UserError, match="another model"):
        said(riding)
    assert not left_behind(toybox[0]) and torch.equal(said(toybox[0]), before)


def test_training_refuses_a_model_with_a_live_adapter(toybox):
    riding = ComfyTextToImage(with_live_adapter(toybox[0], random_live(toybox[0])), *toybox[1:], 64, 64)
    with pytest.raises(RuntimeError, match="remove the live adapter"), riding.training():
        pass


# --- fingerprints ---


def test_different_models_have_different_fingerprints(toybox):
    import comfy.sd
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    model = toybox[0]
    loras = [comfy.sd.load_lora_for_models(model, None, make_lora(model), strength, 0)[0] for strength in (1.0, 0.5)]
    kinds = [ModelSamplingDiscrete().patch(model, *how)[0] for how in (("v_prediction", False), ("eps", True))]
    smaller = random_live(model, AdapterSettings(rank=2, alpha=2))
    riding = [with_live_adapter(model, live) for live in (random_live(model), smaller)]
    different = [model, random_model(), *loras, *kinds, *riding, with_live_adapter(loras[0], random_live(model))]
    prints = [ComfyTextToImage(m).fingerprint for m in different]
    assert len(set(prints)) == len(different)
    same_ones = [
        *(m.clone() for m in different),
        without_live_adapter(riding[0]),
        with_live_adapter(riding[1], random_live(model)),
    ]
    assert [ComfyTextToImage(m).fingerprint for m in same_ones] == [*prints, prints[0], prints[6]]
    for loaded in different:
        said(loaded)
        assert [ComfyTextToImage(m).fingerprint for m in different] == prints


# --- LoRA files ---


def test_the_lora_file_acts_like_the_live_adapter(toybox, native, twin, tmp_path):
    """The saved LoRA draws what the live adapter draws.

    Measured: 4e-6 through ComfyUI's loader and 2e-6 through diffusers', of a change of 0.28 (0.17 of the raw
    prediction).
    """
    import comfy.sd

    model, live = toybox[0], random_live(toybox[0])
    adapter = Adapter(model.model.diffusion_model, ADAPTER)
    adapter.load(live.state)
    prefixes = lora_prefixes(model.model, adapter.layers)
    tensors = lora_tensors(adapter, prefixes)
    patched, _ = comfy.sd.load_lora_for_models(model, None, dict(tensors), 1.0, 0)
    assert len(patched.patches) == len(adapter.layers)
    expected = said(with_live_adapter(model, live))
    assert furthest(expected, said(model)) > 0.1
    assert furthest(said(patched), expected) < 5e-5

    times = torch.tensor([20, 300, 600, 900])
    sigmas, latents, drawn = native.model_sampling.sigmas[times], noise(4, 4, 16, 16), noise(4, 4, 16, 16, seed=1)
    with native.training(), adapter.attached(), torch.no_grad():
        ours = native.predict(native.noised(latents, drawn, sigmas)[0], sigmas, native.encode_prompts(PROMPTS))
    write_lora(tensors, tmp_path / "lora.safetensors", 4, 2.0, {})
    with torch.inference_mode(False):
        merged = DiffusersTextToImage(load_pipeline(weights_folder("pipeline"), lora=tmp_path / "lora.safetensors"))
    question = twin.noised(latents, drawn, times)[0], times, twin.encode_prompts(PROMPTS)
    assert furthest(merged.predict(*question), ours) < 5e-5
    assert furthest(twin.predict(*question), ours) > 0.1

    again = Adapter(model.model.diffusion_model, ADAPTER, seed=8)
    load_tensors(again, read_lora(tmp_path / "lora.safetensors"), "the file", prefixes)
    assert same(again.state(), live.state)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (AdapterSettings(rank=8, alpha=2), "another rank.*Use the rank"),
        (AdapterSettings(rank=4, alpha=4), "alpha 2, but the adapter has 4.*Set alpha to 2"),
        (
            AdapterSettings(rank=4, alpha=2, targets="attention"),
            "another model or target choice.*Use the model and the adapter targets",
        ),
    ],
)
def test_a_lora_of_other_settings_is_refused(toybox, settings, match):
    adapter = Adapter(toybox[0].model.diffusion_model, settings)
    with pytest.raises(UserError, match=match):
        load_tensors(adapter, make_lora(toybox[0]), "the lora", lora_prefixes(toybox[0].model, adapter.layers))


def test_a_lora_of_another_model_is_refused(toybox):
    adapter = Adapter(toybox[0].model.diffusion_model, ADAPTER)
    before = adapter.state()
    with pytest.raises(UserError, match="of another model"):
        load_tensors(adapter, make_lora(random_model()), "the lora", lora_prefixes(toybox[0].model, adapter.layers))
    assert same(adapter.state(), before)
