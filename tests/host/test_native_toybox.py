"""The toybox as ComfyUI's MODEL, CLIP and VAE: equal to its diffusers twin, through ComfyUI's stock nodes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import SamplingSettings
from dreambooth_dpo.toybox.captions import full_caption
from dreambooth_dpo.toybox.models import weights_folder
from dreambooth_dpo.toybox.native import native_toybox
from dreambooth_dpo.toybox.oracle import Oracle
from dreambooth_dpo.toybox.shipped import WEIGHTS
from dreambooth_dpo.toybox.world import Scene, render

SCENES = [
    Scene("robot", "red", "cyan", "grass"),
    Scene("bear", "blue", "yellow", "snow", hat="pink"),
    Scene("bottle", "green", "pink", "brick", hat="red"),
    Scene("robot", "yellow", "blue", "night"),
]
CAPTIONS = [full_caption(scene) for scene in SCENES]
UNET, TEXT, VAE = (
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)


@pytest.fixture(scope="module")
def native(comfyui: Path):
    """MODEL, CLIP and VAE of the toybox, made under inference mode as a node makes them."""
    with torch.inference_mode():
        return native_toybox()


@pytest.fixture(autouse=True)
def _as_nodes_run(native) -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def twin() -> DiffusersTextToImage:
    return DiffusersTextToImage(load_pipeline(weights_folder("pipeline")))


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([render(scene, seed) for seed, scene in enumerate(SCENES)])


def encode(clip, text: str) -> list:
    from nodes import CLIPTextEncode

    return CLIPTextEncode().encode(clip, text)[0]


def decode(vae, latents: torch.Tensor) -> torch.Tensor:
    from nodes import VAEDecode

    return VAEDecode().decode(vae, {"samples": latents})[0]


def furthest(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def test_weights_are_frozen_ordinary_float32(native):
    for module in (native[0].model, native[1].cond_stage_model, native[2].first_stage_model):
        tensors = [*module.parameters(), *module.buffers()]
        assert tensors and not any(t.is_inference() or t.requires_grad for t in tensors)
        assert all(t.dtype == torch.float32 and t.isfinite().all() for t in module.parameters())
        assert not any(m.training for m in module.modules())


@pytest.mark.parametrize("time", [0, 20, 400, 999])
def test_raw_prediction_is_that_of_diffusers(native, twin, time: int):
    model = native[0]
    generator = torch.Generator().manual_seed(time)
    x0, noise = torch.randn(2, 4, 4, 16, 16, generator=generator)
    times = torch.full((4,), time)
    cond = twin.encode_prompts(CAPTIONS)
    expected = twin.predict(twin.noised(x0, noise, times)[0], times, cond)

    sampling = model.get_model_object("model_sampling")
    sigma = sampling.sigmas[times]
    torch.testing.assert_close(sigma**2, (1 - twin.alphas[times]) / twin.alphas[times])
    x = x0 + sigma.view(-1, 1, 1, 1) * noise
    clean = model.model.apply_model(x, sigma, c_crossattn=cond["encoder_hidden_states"], transformer_options={})
    assert furthest((x - clean) / sigma.view(-1, 1, 1, 1), expected) < 1e-4


@pytest.mark.parametrize("text", [*CAPTIONS[:2], "", "A Photo of a RED sks robot, flying", " ".join(["red"] * 22)])
def test_conditioning_is_that_of_diffusers(native, twin, text: str):
    ((cond, extra),) = encode(native[1], text)
    assert furthest(cond, twin.encode_prompts([text])["encoder_hidden_states"]) < 1e-5
    tokens = twin.pipe.tokenizer(text, padding="max_length", max_length=24, return_tensors="pt").input_ids
    assert furthest(extra["pooled_output"], twin.pipe.text_encoder(tokens).pooler_output) < 1e-5


def test_words_beyond_24_tokens_go_into_a_second_section(native, twin):
    """diffusers truncates them."""
    ((cond, _),) = encode(native[1], long := " ".join(["red"] * 20 + ["blue"] * 10))
    assert cond.shape == (1, 48, 128)
    assert furthest(cond[:, :24], twin.encode_prompts([long])["encoder_hidden_states"]) < 1e-5


def test_a_weighted_word_changes_the_conditioning(native):
    plain, weighted = (encode(native[1], text)[0][0] for text in ("a red robot", "a (red:1.4) robot"))
    assert weighted.shape == plain.shape and weighted.isfinite().all() and not torch.equal(weighted, plain)


def test_vae_encodes_as_diffusers_does(native, twin, pictures):
    from nodes import VAEEncode, VAEEncodeTiled

    pixels = torch.from_numpy(pictures).float().div(255)
    expected = twin.encode_images(pictures)
    assert furthest(VAEEncode().encode(native[2], pixels)[0]["samples"], expected) < 1e-5
    tiled = VAEEncodeTiled().encode(native[2], pixels, tile_size=512, overlap=64)[0]["samples"]
    assert furthest(tiled, expected) < 1e-5


def test_vae_decodes_as_diffusers_does(native, twin, pictures):
    from nodes import VAEDecodeTiled

    latents = torch.cat(
        [twin.encode_images(pictures), 3 * torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))]
    )
    expected = twin.pipe.vae.decode(latents).sample.add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1)
    images = decode(native[2], latents)
    assert furthest(images, expected) < 1e-5
    assert np.abs(images.mul(255).numpy() - twin.decode(latents)).max() < 0.51  # it rounds to whole grey values
    assert furthest(VAEDecodeTiled().decode(native[2], {"samples": latents}, tile_size=512)[0], expected) < 1e-5


def test_vae_takes_other_sizes_and_real_tiles(native):
    vae = native[2]
    assert vae.encode(torch.rand(1, 66, 71, 3)).shape == (1, 4, 16, 17)  # cropped to multiples of 4
    large = torch.nn.functional.interpolate(torch.randn(1, 4, 12, 10), scale_factor=4, mode="bilinear")
    tiled = vae.decode_tiled(large, tile_x=24, tile_y=24, overlap=8)
    assert (tiled - decode(vae, large)).abs().mean() < 1 / 255


def test_same_noise_gives_the_picture_of_diffusers(native, twin):
    """With 27 steps, 999 / 27 is whole, so diffusers' rounded timesteps equal ComfyUI's "sgm_uniform"."""
    import comfy.sample

    model, clip, vae = native
    settings = SamplingSettings(steps=27, guidance=3.0, width=64, height=64)
    expected = twin.sample([CAPTIONS[0]] * 2, [5, 6], settings)
    noise = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)])
    cond, plain = encode(clip, CAPTIONS[0]), encode(clip, "")
    latents = comfy.sample.sample(
        model, noise, 27, 3.0, "dpmpp_2m", "sgm_uniform", cond, plain, torch.zeros_like(noise), disable_pbar=True
    )
    assert furthest(latents, expected) < 1e-4
    assert np.abs(decode(vae, latents).mul(255).round().numpy() - twin.decode(expected)).mean() < 0.01  # grey values


def test_stock_nodes_draw_what_the_caption_says(native):
    from nodes import EmptyLatentImage, KSampler

    model, clip, vae = native
    plain, images = encode(clip, ""), []
    for seed, text in enumerate(CAPTIONS):
        (empty,) = EmptyLatentImage().generate(128, 128)
        (latent,) = KSampler().sample(model, seed, 14, 3.0, "dpmpp_2m", "normal", encode(clip, text), plain, empty)
        images.append(decode(vae, latent["samples"]))
    drawn = torch.cat(images).mul(255).round().to(torch.uint8).numpy()
    assert drawn.shape == (4, 64, 64, 3)
    assert Oracle().judge(drawn, SCENES).all_right.all()


def test_previews_show_the_picture(native, twin, pictures):
    from latent_preview import Latent2RGBPreviewer

    form = native[0].get_model_object("latent_format")
    latents = form.process_in(twin.encode_images(pictures))
    previewer = Latent2RGBPreviewer(form.latent_rgb_factors, form.latent_rgb_factors_bias)
    for latent, picture in zip(latents, pictures, strict=True):
        preview = np.asarray(previewer.decode_latent_to_preview(latent[None]), np.float32)
        assert np.abs(preview - picture.reshape(16, 4, 16, 4, 3).mean((1, 3))).mean() < 40


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(WEIGHTS / "pipeline", tmp_path / "pipeline")
    return tmp_path


def test_no_weights_at_all_say_how_to_make_them(tmp_path: Path):
    with pytest.raises(UserError, match=r"toybox\.train"):
        native_toybox(tmp_path)


@pytest.mark.parametrize("name", [UNET, TEXT, VAE, "tokenizer/tokenizer.json", "unet/config.json"])
def test_a_missing_file_is_named(copied: Path, name: str):
    (copied / "pipeline" / name).unlink()
    with pytest.raises(UserError, match=rf"{Path(name).name} cannot be used.*toybox\.train"):
        native_toybox(copied)


@pytest.mark.parametrize("name", [UNET, TEXT, VAE])
@pytest.mark.parametrize("damage", ["missing", "unexpected", "other shape", "cut off"])
def test_only_the_expected_weights_are_taken(copied: Path, name: str, damage: str):
    path = copied / "pipeline" / name
    tensors = load_file(path)
    key = sorted(tensors)[-1]
    if damage == "missing":
        tensors.pop(key)
    elif damage == "unexpected":
        tensors["one.too.many"] = torch.zeros(2)
    else:
        tensors[key] = torch.zeros(2, 5)
    save_file(tensors, path)
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{path.name} cannot be used"):
        native_toybox(copied)


def test_diffusers_is_not_needed(comfyui: Path, tmp_path: Path):
    """ComfyUI installs transformers and safetensors, but not diffusers."""
    program = f"""
import sys
sys.modules["diffusers"] = None  # importing it raises
sys.path.append({str(comfyui)!r})
import comfy.options
comfy.options.enable_args_parsing(False)
from comfy.cli_args import args
args.cpu = True
from dreambooth_dpo.toybox.native import native_toybox
print(*(type(part).__name__ for part in native_toybox()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["ModelPatcher", "CLIP", "VAE"]), done.stderr
