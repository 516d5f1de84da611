"""Contracts of host_loras: the host's names of layers, and what a LoRA changes by its own loader."""

from __future__ import annotations

import pytest
import torch
from contracts import changed
from native_models import random_model
from safetensors.torch import save_file

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


# --- what a MODEL carries ---

NAME, KEY = "lora_unet_double_blocks_0_img_attn_qkv", f"diffusion_model.{QKV}.weight"
ONES = {f"{NAME}.lora_up.weight": torch.ones(192, 2), f"{NAME}.lora_down.weight": torch.ones(2, 64)}
"""A LoRA of rank 2 without alpha: every element of its change is 2."""


def test_weight_patches_and_lora_patches_and_change_of_are_the_hosts_sums(flux):
    """At strength 0.5 every element changes by 0.5 * 2 = 1."""
    carried = host.weight_patches(host.with_lora(flux, ONES, 0.5))
    assert list(carried) == [KEY] and [p.strength for p in carried[KEY]] == [0.5], changed("ModelPatcher.patches")
    assert carried[KEY][0].kind == "lora" and carried[KEY][0].of_model == 1
    assert torch.equal(host.change_of(carried[KEY], KEY, (192, 64)), torch.ones(192, 64))
    alone = host.lora_patches(host.with_lora(flux, ONES, 0.5), ONES)
    assert [p.strength for p in alone[KEY]] == [1.0], changed("add_patches")
    assert host.weight_patches(flux) == {}


def test_has_loras_and_with_lora_strength_leave_the_original(flux):
    one = host.with_lora(flux, ONES, 0.5)
    weaker = host.with_lora_strength(one, 0.5)
    assert host.has_loras(one) and not host.has_loras(flux)
    assert [host.weight_patches(m)[KEY][0].strength for m in (one, weaker)] == [0.5, 0.25]
    assert weaker.patches_uuid != one.patches_uuid, changed("patches_uuid")


def test_with_lora_on_both_and_lora_fit_take_what_matches(flux):
    """No CLIP here: the MODEL alone. A key that matches nothing is named."""
    model, clip = host.with_lora_on_both(flux, None, ONES, 0.5)
    assert clip is None and host.weight_patches(model)[KEY][0].strength == 0.5 and not flux.patches
    fit = host.lora_fit(flux, None, {**ONES, "no.such.layer": torch.ones(1)})
    assert (fit[0], fit[1], list(fit[2]), list(fit[3])) == (1, 0, ["no.such.layer"], []), changed("load_lora")


def test_read_lora_file_gives_the_tensors(comfyui, tmp_path):
    save_file(ONES, tmp_path / "größe.safetensors")
    found = host.read_lora_file(tmp_path / "größe.safetensors")
    assert found.keys() == ONES.keys() and all(torch.equal(found[k], ONES[k]) for k in ONES)
