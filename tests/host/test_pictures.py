"""Correct pictures on this host: toybox pictures through stock nodes, and a VAE that decodes wrong colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hosting import Server, comfyui_path
from native_models import noise
from PIL import Image
from toy_graphs import node

from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.toybox.captions import full_caption
from dreambooth_dpo.toybox.native import native_toybox
from dreambooth_dpo.toybox.oracle import Oracle
from dreambooth_dpo.toybox.train.data import distinct_scenes

pytestmark = pytest.mark.usefixtures("comfyui")
SCENES = distinct_scenes(40, 987_654)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("pictures")) as running:
        yield running


@pytest.mark.slow  # 40 pictures; test_native_toybox compares the same model with diffusers number by number
def test_nine_of_ten_pictures_of_stock_nodes_are_right(server: Server):
    """40 held-out scenes from their full captions; with diffusers 99.5 % are right (docs/toybox.md)."""
    core = {
        "toy": node("LoadToybox", concept=0, personalized=False, steps=1),
        "empty": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
        "none": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["toy", 1], "text": ""}},
    }
    how = {"steps": 14, "cfg": 4.0, "sampler_name": "dpmpp_2m", "scheduler": "normal", "denoise": 1.0}
    for i, scene in enumerate(SCENES):
        drawn = {
            "model": ["toy", 0],
            "positive": [f"text{i}", 0],
            "negative": ["none", 0],
            "latent_image": ["empty", 0],
            "seed": i,
        }
        core |= {
            f"text{i}": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["toy", 1], "text": full_caption(scene)}},
            f"draw{i}": {"class_type": "KSampler", "inputs": {**drawn, **how}},
            f"decode{i}": {"class_type": "VAEDecode", "inputs": {"samples": [f"draw{i}", 0], "vae": ["toy", 2]}},
            f"save{i}": {
                "class_type": "SaveImage",
                "inputs": {"images": [f"decode{i}", 0], "filename_prefix": f"scene{i}"},
            },
        }
    shown = server.run(core)["outputs"]
    files = [server.folder / "output" / shown[f"save{i}"]["images"][0]["filename"] for i in range(len(SCENES))]
    pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    right = Oracle().judge(pictures, SCENES).all_right
    assert right.mean() >= 0.9, [full_caption(s) for s, r in zip(SCENES, right, strict=True) if not r]


def test_a_vae_that_gives_wrong_colours_is_refused_and_never_drawn_with():
    """A VAE of another pack whose process_output returns a new tensor.

    ComfyUI 0.3.64 uses the returned value; 0.33 ignores it and leaves values in -1..1.
    """
    model, clip, vae = native_toybox()
    latents = noise(2, 4, 16, 16, seed=4)
    with torch.inference_mode():
        right = ComfyTextToImage(model, clip, vae, 64, 64).decode(latents)
        vae.process_output = lambda image: image.add(1).div(2).clamp(0, 1)
        try:
            assert np.array_equal(ComfyTextToImage(model, clip, vae, 64, 64).decode(latents), right)
        except UserError as refused:
            assert "the VAE gives values from -" in str(refused) and "Load VAE or Load Checkpoint" in str(refused)


def test_a_vae_that_gives_nan_is_refused_instead_of_black_pictures():
    model, clip, vae = native_toybox()
    own = vae.process_output
    vae.process_output = lambda image: image.fill_(float("nan"))  # in place: both hosts see it
    try:
        with torch.inference_mode(), pytest.raises(UserError, match="the VAE gives NaN or infinity for the pixels"):
            ComfyTextToImage(model, clip, vae, 64, 64).decode(noise(2, 4, 16, 16, seed=4))
    finally:
        vae.process_output = own
