"""The contract of host.py with ComfyUI: sampling, prediction, and models without a checkpoint."""

from __future__ import annotations

import pytest
import torch
from contracts import changed
from native_models import PROMPTS, noise

from dreambooth_dpo.dpo_core.backends.comfyui import host, random_models
from dreambooth_dpo.dpo_core.settings import SamplingSettings
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")
HERE = f"ComfyUI {host.version()}"
DRAWING = SamplingSettings(steps=3, guidance=2.0, guidance_until=0.5, width=64, height=64)


@pytest.fixture(scope="module")
def toybox(comfyui):
    return native_toybox()


# --- prompts, drawing, prediction ---


def test_model_conds_are_the_denoisers_own_inputs(toybox):
    model, clip, _ = toybox
    found = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPTS[0]))
    assert len(found) == 1, changed("a prompt gives several entries")
    conds = host.model_conds(model.model, found[0], (4, 16, 16), model.load_device)
    assert list(conds) == ["c_crossattn"] and conds["c_crossattn"].cond.shape == (1, 24, 128), changed("COND objects")


def test_sampler_names_and_scheduler_names_hold_the_usual_ones(comfyui):
    assert {"euler", "dpmpp_2m", "uni_pc", "ddim"} <= set(host.sampler_names()), changed("samplers")
    assert {"normal", "karras", "simple"} <= set(host.scheduler_names()), changed("schedulers")


def test_kinds_compute_what_their_names_say(comfyui):
    """x0 from the raw output o: eps x - s o; v x/(s^2+1) - o s/sqrt(s^2+1); flow x - s o;
    cosmos (1 - c) x - c o, c = s / (s + 1).

    Here sigma_data = 1, s = 0.5, x = 2, o = 1.
    """
    sigma, x, output = torch.tensor([0.5]), torch.full((1, 1, 1, 1), 2.0), torch.ones(1, 1, 1, 1)
    expected = {"eps": 1.5, "v": 2 / 1.25 - 0.5 / 1.25**0.5, "flow": 1.5, "cosmos": 1.0}
    for name, kind in host.kinds().items():
        sampling = type("Sampling", (kind,), {"sigma_data": 1.0})()
        assert float(sampling.calculate_denoised(sigma, output, x)) == pytest.approx(expected[name]), changed(
            f"kind {name}"
        )


def test_sample_and_sample_guided_agree_where_guidance_never_ends(toybox):
    model, clip, _ = toybox
    conds = [clip.encode_from_tokens_scheduled(clip.tokenize(p)) for p in (PROMPTS[0], "")]
    seen = []
    given = model, noise(1, 4, 16, 16), DRAWING, "euler", "normal", *conds, lambda *step: seen.append(step[0]), 0
    plain, guided = host.sample(*given), host.sample_guided(*given, lambda sigmas: -1.0)
    never = host.sample_guided(*given, lambda sigmas: float("inf"))
    assert seen == [0, 1, 2] * 3, changed("callback(step, denoised, x, steps)")
    assert torch.equal(plain, guided), changed("CFGGuider draws otherwise than comfy.sample.sample")
    assert float((plain - never).abs().max()) > 0.01


def test_denoise_goes_through_autograd(toybox):
    model, clip, _ = toybox
    cond = {
        k: v.cond.clone()
        for k, v in host.model_conds(
            model.model, clip.encode_from_tokens_scheduled(clip.tokenize("a"))[0], (4, 16, 16), model.load_device
        ).items()
    }
    with host.for_training(model, 0):
        x = noise(1, 4, 16, 16).requires_grad_()
        options = {}
        host.denoise(model.model, x, torch.ones(1), options, {k: v.clone() for k, v in cond.items()}).sum().backward()
        assert float(x.grad.abs().sum()) > 0 and options == {}, changed("apply_model under autograd")


def test_check_interrupt_raises_the_hosts_own_once(comfyui):
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        host.check_interrupt()
    host.check_interrupt()


def test_progress_bar_and_previewer_take_what_nodes_give_them(toybox, monkeypatch):
    from comfy.cli_args import LatentPreviewMethod, args
    from PIL import Image

    assert host.previewer(toybox[0]) is None  # the host's own default without a page
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)

    bar = host.progress_bar(4, "7")
    bar.update_absolute(2, 4, ("JPEG", Image.new("RGB", (8, 8)), 512))
    assert (bar.current, bar.total) == (2, 4)
    kind, picture, most = host.previewer(toybox[0]).decode_latent_to_preview_image("JPEG", noise(1, 4, 16, 16))
    assert kind == "JPEG" and picture.size[0] >= 16 and most >= 64, changed("previews")


# --- models without a checkpoint ---


def test_unet_model_text_encoder_and_image_codec_are_what_nodes_take(toybox):
    import nodes

    model, clip, vae = toybox
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    conds = [nodes.CLIPTextEncode().encode(clip, text)[0] for text in (PROMPTS[0], "")]
    (drawn,) = nodes.KSampler().sample(model, 0, 2, 2.0, "euler", "normal", *conds, latent)
    (pictures,) = nodes.VAEDecode().decode(vae, drawn)
    assert pictures.shape == (1, 64, 64, 3) and 0 <= float(pictures.min()) < float(pictures.max()) <= 1


def test_image_codec_brings_pictures_to_0_and_1_in_place(toybox):
    """0.33 ignores what process_output returns; 0.3.64 takes it."""
    values = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    assert toybox[2].process_output(values) is values and values.tolist() == [0, 0, 0.5, 1, 1]
    given = torch.zeros(2)
    toybox[2].process_input(given)
    assert given.tolist() == [0, 0], "a user's picture was written to"


def test_checkpoint_model_recognises_a_checkpoint(comfyui, tmp_path, monkeypatch):
    """Recognised by names and shapes: those of SD 1.5, with fewer layers."""
    depth = {"num_res_blocks": [1], "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]}
    monkeypatch.setitem(random_models.UNETS, "sd15", {**random_models.UNETS["sd15"], **depth})
    random_models.write_denoiser("sd15", tmp_path / "shallow.safetensors")
    found = host.checkpoint_model(tmp_path / "shallow.safetensors")
    assert len(found.model.diffusion_model.input_blocks) == 2 and host.unet_names(found.model), changed("its loader")
    assert host.numbers(host.version()) < (0, 33) or found.cached_patcher_init, changed(
        "loaders leave no cached_patcher_init"
    )


def test_with_lora_patches_the_layers_that_it_names(toybox):
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    width = toybox[0].model.diffusion_model.middle_block[1].transformer_blocks[0].attn1.to_q.weight.shape[0]
    lora = {
        f"{name}.lora_up.weight": torch.ones(width, 2),
        f"{name}.lora_down.weight": torch.ones(2, width),
        f"{name}.alpha": torch.tensor(2.0),
    }
    assert list(host.with_lora(toybox[0], lora).patches) == [
        "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    ], changed("LoRA keys")
    assert not toybox[0].patches


def test_class_of_file_tells_what_the_loader_will_make(comfyui, tmp_path, monkeypatch):
    """By names and shapes alone; a file of no model, a truncated one and another format have no class."""
    depth = {"num_res_blocks": [1], "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]}
    monkeypatch.setitem(random_models.UNETS, "sd15", {**random_models.UNETS["sd15"], **depth})
    path = tmp_path / "shallow.safetensors"
    random_models.write_denoiser("sd15", path)
    name, config = host.class_of_file(path)
    loaded = host.checkpoint_model(path).model.model_config
    assert name == type(loaded).__name__ and config["context_dim"] == loaded.unet_config["context_dim"], changed(
        "its detection"
    )
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:2000])
    (tmp_path / "other.ckpt").write_bytes(b"x")
    assert (
        host.class_of_file(tmp_path / "cut.safetensors") is None and host.class_of_file(tmp_path / "other.ckpt") is None
    )
