"""Sampling and prompts through ComfyUI's own functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from native_models import (
    DRAWING,
    LONG,
    PROMPTS,
    furthest,
    left_behind,
    noise,
    random_live,
    random_model,
    users_lora,
    weights_of,
)

from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage, with_live_adapter
from dreambooth_dpo.dpo_core.backends.comfyui.conditioning import batch, groups
from dreambooth_dpo.dpo_core.backends.comfyui.model import BATCH_INVARIANT
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")

SEEDS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def toybox(comfyui: Path):
    """MODEL, CLIP and VAE of the toybox, made under inference mode as a node makes them."""
    with torch.inference_mode():
        return native_toybox()


@pytest.fixture
def native(toybox) -> ComfyTextToImage:
    return ComfyTextToImage(*toybox, 64, 64)


# --- sampling ---


def apart(native: ComfyTextToImage, prompts=PROMPTS, settings=DRAWING) -> torch.Tensor:
    return torch.cat([native.sample([p], [s], settings) for p, s in zip(prompts, SEEDS, strict=True)])


@pytest.mark.parametrize("sampler", BATCH_INVARIANT)
def test_a_candidate_depends_on_its_prompt_and_seed_only(native, sampler):
    """Measured over 4 to 6 steps, latents up to 5: at most 2.1e-5 with PyTorch 2.14, 1.7e-4 (dpm_2) with 2.11."""
    native.sampler = sampler
    assert furthest(native.sample(PROMPTS, SEEDS, DRAWING), apart(native)) < 5e-4


@pytest.mark.parametrize("sampler", ["euler_ancestral", "lcm"])
def test_samplers_that_add_noise_draw_it_for_the_whole_batch(native, sampler):
    native.sampler = sampler
    assert furthest(native.sample(PROMPTS, SEEDS, DRAWING), apart(native)) > 1


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_prompts_of_different_lengths_share_a_batch(native, guidance):
    """24 and 48 tokens, with the long prompt first and last."""
    settings = DRAWING.model_copy(update={"guidance": guidance})
    for prompts in ([LONG, *PROMPTS[:3]], [*PROMPTS[:3], LONG]):
        assert furthest(native.sample(prompts, SEEDS, settings), apart(native, prompts, settings)) < 1e-4


def test_guidance_and_the_negative_prompt_act(toybox, native):
    drawn = {g: native.sample(PROMPTS, SEEDS, DRAWING.model_copy(update={"guidance": g})) for g in (1.0, 3.0)}
    assert furthest(drawn[1.0], drawn[3.0]) > 0.1
    other = ComfyTextToImage(*toybox, 64, 64, negative="a blue bear")
    assert furthest(other.sample(PROMPTS, SEEDS, DRAWING), drawn[3.0]) > 0.1
    assert torch.equal(other.sample(PROMPTS, SEEDS, DRAWING.model_copy(update={"guidance": 1.0})), drawn[1.0])


@pytest.mark.parametrize("scale", ["toybox", "sd"])
def test_latents_and_pictures_equal_those_of_the_stock_nodes(toybox, scale):
    """SD's latents are the VAE's latents times 0.18215."""
    import comfy.sample

    from nodes import CLIPTextEncode, VAEDecode, VAEEncode

    model = toybox[0] if scale == "toybox" else random_model()
    native = ComfyTextToImage(model, *toybox[1:], 64, 64, "euler", "normal", negative="a bear")
    factor = 1.0 if scale == "toybox" else 0.18215
    drawn = torch.stack([noise(4, 16, 16, seed=s) for s in SEEDS[:2]])
    cond, plain = (CLIPTextEncode().encode(toybox[1], text)[0] for text in (PROMPTS[0], "a bear"))
    samples = comfy.sample.sample(
        model,
        drawn,
        DRAWING.steps,
        DRAWING.guidance,
        "euler",
        "normal",
        cond,
        plain,
        torch.zeros_like(drawn),
        disable_pbar=True,
    )
    latents = native.sample([PROMPTS[0]] * 2, SEEDS[:2], DRAWING)
    assert furthest(latents, samples * factor) < 1e-5 * latents.abs().max()
    images = VAEDecode().decode(toybox[2], {"samples": latents / factor})[0]
    assert np.abs(native.decode(latents) - images.mul(255).numpy()).max() < 0.51  # decode rounds to whole grey values
    encoded = VAEEncode().encode(toybox[2], torch.from_numpy(native.decode(latents)).float() / 255)[0]["samples"]
    assert furthest(native.encode_images(native.decode(latents)), encoded * factor) < 1e-5


def test_the_callback_runs_at_every_step_and_may_raise(toybox, native):
    """A MODEL with a live adapter draws the same after a callback raised as before."""
    riding = ComfyTextToImage(with_live_adapter(toybox[0], random_live(toybox[0])), *toybox[1:], 64, 64)
    weights, plain, expected = (
        weights_of(toybox[0]),
        native.sample(PROMPTS[:2], [1, 2], DRAWING),
        riding.sample(PROMPTS[:2], [1, 2], DRAWING),
    )
    told, steps = [], []

    def watch(step, of, denoised):
        told.append((step, of, tuple(denoised.shape)))
        if len(told) == 6:
            raise KeyboardInterrupt

    riding.watch = watch
    assert torch.equal(riding.sample(PROMPTS[:2], [1, 2], DRAWING, steps.append), expected)
    assert told == [(step, 4, (2, 4, 16, 16)) for step in (1, 2, 3, 4)] and steps == [1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        riding.sample(PROMPTS[:2], [1, 2], DRAWING)
    riding.watch = None
    assert torch.equal(riding.sample(PROMPTS[:2], [1, 2], DRAWING), expected)
    assert torch.equal(native.sample(PROMPTS[:2], [1, 2], DRAWING), plain)
    assert not left_behind(toybox[0]) and all(
        torch.equal(v, weights[k]) for k, v in toybox[0].model.state_dict().items()
    )


# --- prompts ---


def test_training_accepts_prompts_of_different_lengths(native):
    """Measured: 1e-6."""
    prompts = [PROMPTS[0], LONG, PROMPTS[1]]
    with native.training(), torch.no_grad():
        times = native.draw_timesteps(3, torch.Generator().manual_seed(0))
        cond = native.encode_prompts(prompts)
        lengths = [native._conds[row]["c_crossattn"].cond.shape[1] for row in cond["row"].tolist()]
        assert lengths == [24, 48, 24] and groups([native._conds[row] for row in cond["row"]]) == [[0, 2], [1]]
        x = noise(3, 4, 16, 16)
        together = native.predict(x, times, cond)
        for i, prompt in enumerate(prompts):
            alone = native.predict(x[i : i + 1], times[i : i + 1], native.encode_prompts([prompt]))
            assert furthest(together[i : i + 1], alone) < 1e-5


def test_prompts_are_encoded_once(toybox, native, monkeypatch):
    calls = []
    original = toybox[1].encode_from_tokens_scheduled
    monkeypatch.setattr(toybox[1], "encode_from_tokens_scheduled", lambda tokens: calls.append(1) or original(tokens))
    native.encode_texts([*PROMPTS, *PROMPTS])
    native.sample(PROMPTS, SEEDS, DRAWING)  # also encodes the empty negative prompt
    native.encode_prompts(PROMPTS)
    assert len(calls) == 5


def test_batches_have_one_row_per_prompt():
    """[1, 2, 1] and [1, 3, 1] tokens become 6; pooled texts are concatenated, equal values are kept."""
    short, long = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [4.0], [5.0]]])
    ((tensor, extras),) = batch(
        [
            (short, {"pooled_output": torch.ones(1, 2), "guidance": 3.5}),
            (long, {"pooled_output": torch.zeros(1, 2), "guidance": 3.5}),
        ]
    )
    assert tensor[:, :, 0].tolist() == [[1, 2, 1, 2, 1, 2], [3, 4, 5, 3, 4, 5]]
    assert extras["pooled_output"].tolist() == [[1, 1], [0, 0]] and extras["guidance"] == 3.5


@pytest.mark.parametrize(
    ("lengths", "extras", "match"),
    [
        ((2, 2), ({"a": 1}, {"a": 2}), "differ in 'a'.*batch size to 1"),
        ((2, 2), ({}, {"a": 2}), "differ in 'a'.*batch size to 1"),
        ((2, 2), ({"a": torch.ones(1, 2)}, {"a": torch.ones(1, 3)}), "differ.*'a'.*batch size to 1"),
        ((2, 2), ({}, {"a": torch.ones(1, 3)}), "differ.*'a'.*batch size to 1"),
        ((7, 8, 9), ({}, {}, {}), r"\[7, 8, 9\] tokens"),
    ],
)
def test_prompts_that_cannot_share_a_batch_are_refused(lengths, extras, match):
    with pytest.raises(UserError, match=match):
        batch([(torch.zeros(1, n, 1), extra) for n, extra in zip(lengths, extras, strict=True)])


@pytest.mark.parametrize(("apply_to_conds", "scheduled"), [(True, False), (False, True), (True, True)])
def test_scheduled_prompts_are_refused(toybox, apply_to_conds, scheduled):
    """A LoRA on the text encoder from half of the steps on gives two entries per prompt, or entries with hooks."""
    import comfy.hooks
    from comfy_extras.nodes_hooks import SetClipHooks

    hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((0.0, 0.0), (1.0, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    hooks.set_keyframes_on_hooks(keyframes)
    (clip,) = SetClipHooks().apply_hooks(toybox[1], scheduled, apply_to_conds, hooks)
    with pytest.raises(UserError, match="without hooks or schedules"):
        ComfyTextToImage(toybox[0], clip, toybox[2], 64, 64).encode_texts(PROMPTS[:1])


def test_a_missing_clip_is_named(toybox):
    with pytest.raises(UserError, match="no CLIP is connected"):
        ComfyTextToImage(toybox[0], None, toybox[2], 64, 64).encode_texts(PROMPTS)


def test_inpainting_models_are_refused(toybox):
    model = random_model()
    model.model.set_inpaint()
    native = ComfyTextToImage(model, *toybox[1:], 64, 64)
    with pytest.raises(UserError, match="takes c_concat beside the prompt.*text-to-image model"), native.training():
        native.encode_prompts(PROMPTS)


def test_video_models_are_refused(monkeypatch):
    model = random_model()
    monkeypatch.setattr(model.model.latent_format, "latent_dimensions", 3)
    with pytest.raises(UserError, match="video model"):
        ComfyTextToImage(model)


# --- the user's LoRA at another strength ---


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5])
def test_at_a_lora_strength_pictures_are_those_of_a_load_at_that_strength(toybox, factor):
    """A LoRA at 0.8, drawn at `factor` of that, with the live adapter on."""
    from dreambooth_dpo.dpo_core.backends.comfyui import host

    model, clip, vae = toybox
    live = random_live(model)

    def backend(strength: float) -> ComfyTextToImage:
        carrying = host.with_lora(model, users_lora(model), strength)
        return ComfyTextToImage(with_live_adapter(carrying, live), clip, vae, 64, 64)

    given, other = backend(0.8), backend(0.8 * factor)
    before = given.sample(PROMPTS[:1], [1], DRAWING)
    with given.at_lora_strength(factor):
        drawn = given.sample(PROMPTS[:1], [1], DRAWING)
    assert furthest(drawn, other.sample(PROMPTS[:1], [1], DRAWING)) < 1e-4 < furthest(drawn, before)
    assert furthest(given.sample(PROMPTS[:1], [1], DRAWING), before) < 1e-4


def test_a_text_encoders_lora_follows_the_strength(toybox):
    """The CLIP's patches are scaled too, and prompts are encoded anew inside only."""
    import comfy.sd

    model, clip, vae = toybox
    key = next(k for k in clip.patcher.model_state_dict() if k.endswith("q_proj.weight"))
    with torch.inference_mode(False):
        carrying = clip.clone()
        shape = clip.patcher.model_state_dict()[key].shape
        carrying.add_patches({key: ("diff", (noise(*shape),))}, 1.0)
    unet = comfy.sd.load_lora_for_models(model, None, users_lora(model), 1.0, 0.0)[0]
    given, plain = (ComfyTextToImage(unet, c, vae, 64, 64) for c in (carrying, clip))
    encoded = given._entry(PROMPTS[0])[0].clone()
    with given.at_lora_strength(0.0):
        assert furthest(given._entry(PROMPTS[0])[0], plain._entry(PROMPTS[0])[0]) < 1e-5
    assert torch.equal(given._entry(PROMPTS[0])[0], encoded)
    assert furthest(encoded, plain._entry(PROMPTS[0])[0]) > 1e-3


def test_a_model_without_a_lora_says_so(native):
    assert "carries no LoRA" in native.fixed_strength


def test_sample_candidates_draws_a_wide_pool(nodes, toybox, tmp_path, monkeypatch):
    """On the toybox's MODEL with a LoRA: four candidates a prompt, the last of the base model, and two photos."""
    from toy_graphs import SAMPLING

    from dreambooth_dpo.dpo_core.backends.comfyui import host
    from dreambooth_dpo.dpo_core.concept import Concept
    from dreambooth_dpo.dpo_core.prompts import PromptSet
    from dreambooth_dpo.dpo_core.run.folder import RunFolder
    from dreambooth_dpo.nodes.host.runs import NodeProgress
    from dreambooth_dpo.nodes.sockets import Candidates
    from dreambooth_dpo.nodes.stages.sample import draw_candidates, sampling_of

    model, clip, vae = toybox
    photos = np.stack([np.full((96, 64, 3), v, np.uint8) for v in (40, 200)])
    concept, prompts = Concept("sks", "robot", photos), PromptSet(tuple(PROMPTS[:2]), (PROMPTS[3],))
    wide = {**SAMPLING, "lora_spread": 0.5, "base_candidates": 1, "photo_candidates": True}
    settings, sampler = sampling_of(wide)

    def drawn(given, chosen=settings):
        handle = Candidates(tmp_path, "", concept, prompts, chosen, sampler, 0)
        return draw_candidates(given, clip, vae, handle, NodeProgress(None))

    with pytest.raises(UserError, match="lora_spread is 0.5, but the MODEL carries no LoRA"):
        drawn(model)
    carrying = host.with_lora(model, users_lora(model), 1.0)
    handle, shown = drawn(carrying)
    plain, _ = drawn(carrying, sampling_of(SAMPLING)[0])
    with RunFolder(tmp_path) as run:
        found, latents = run.candidates(handle.set_name), run.latents(handle.set_name)
        assert [c.strength for c in found[:4]] == [1.0, 0.5, 1.5, 0.0] and [c.photo for c in found[12:]] == [0, 1]
        assert found[12].prompt == "a photo of a sks robot" and len(shown) == 3 and len(found) == 14
        assert furthest(latents[0], run.latents(plain.set_name)[0]) < 1e-4
        assert furthest(latents[3], run.latents(plain.set_name)[3]) > 1e-2
        assert run.images(handle.set_name, [13]).min() == 200
