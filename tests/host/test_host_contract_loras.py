"""Contracts of host_loras: the host's names of layers, and what a LoRA changes by its own loader."""

from __future__ import annotations

import pytest
import torch
from contracts import changed
from native_models import random_model

from dreambooth_dpo.dpo_core.backends.comfyui import host

pytestmark = pytest.mark.usefixtures("comfyui")
QKV = "double_blocks.0.img_attn.qkv"


@pytest.fixture(scope="module")
def flux(comfyui):
    """A Flux of width 64."""
    yield random_model("flux")


def test_diffusers_places_are_layers_and_rows_of_them(flux):
    places = host.diffusers_places(flux.model, "flux_to_diffusers")
    assert places["transformer_blocks.0.attn.to_k"][:2] == (QKV, (64, 64)), changed("entries of fused layers")
    assert places["transformer_blocks.0.attn.to_out.0"] == ("double_blocks.0.img_attn.proj", None, None)
    swapped = places["norm_out.linear"]
    assert swapped.layer == "final_layer.adaLN_modulation.1" and swapped.rows is None
    assert swapped.change(torch.arange(4)).tolist() == [2, 3, 0, 1], changed("the exchange of scale and shift")
    assert host.diffusers_places(flux.model, "no_such_map") == {}


def test_lora_layers_are_known_by_kohyas_names_and_the_models_own(flux):
    layers = host.lora_layers(flux.model)
    assert layers["lora_unet_double_blocks_0_img_attn_qkv"] == QKV, changed("LoRA keys")
    assert layers[f"diffusion_model.{QKV}"] == QKV
    assert "transformer.transformer_blocks.0.attn.to_k" not in layers


def test_weight_changes_are_those_of_the_lora_alone(flux):
    """All ones of rank 2 with alpha 1: every element of the change is 1/2 * 2 = 1, also beside another patch."""
    name, other = "lora_unet_double_blocks_0_img_attn_qkv", "double_blocks.0.img_attn.proj"
    lora = {f"{name}.lora_up.weight": torch.ones(192, 2), f"{name}.lora_down.weight": torch.ones(2, 64)}
    lora[f"{name}.alpha"] = torch.tensor(1.0)
    for model in (flux, host.with_lora(flux, lora, 0.5)):
        found = host.weight_changes(model, lora, [QKV, other, "no.such.layer"])
        assert torch.equal(found[QKV], torch.ones(192, 64)), changed("calculate_weight or the form of patches")
        assert found[other] is None and found["no.such.layer"] is None
    assert not flux.patches
