"""LoRA files in diffusers' own form: exact splits, names of UNets, and diffusers' own loader."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.training.lora_export import (
    Export,
    Part,
    diffusers_tensors,
    export_file,
    unet_export,
    unet_layer,
    write_form,
)

UNET = {
    "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 32,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 8, "cross_attention_dim": 32,
}  # fmt: skip


def layer(name: str, rows: int, columns: int = 3, rank: int = 2, alpha: float | None = 1.0) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(len(name))
    made = {
        f"{name}.lora_down.weight": torch.randn(rank, columns, generator=draws),
        f"{name}.lora_up.weight": torch.randn(rows, rank, generator=draws),
    }
    return made if alpha is None else {**made, f"{name}.alpha": torch.tensor(alpha)}


def test_a_fused_layer_is_split_by_rows_and_alpha_is_multiplied_in():
    """Rows 0-1, 2-3 and 4-5 of up, each times alpha / rank = 1/2; down is the same in all three."""
    lora = layer("qkv", 6)
    parts = tuple(
        Part(f"transformer.to_{part}", torch.arange(i, i + 2)) for part, i in zip("qkv", (0, 2, 4), strict=True)
    )
    made = diffusers_tensors(lora, Export("Flux", {"qkv": parts}))
    assert sorted(made) == sorted(f"transformer.to_{p}.lora_{m}.weight" for p in "qkv" for m in "AB")
    for part, i in zip("qkv", (0, 2, 4), strict=True):
        assert torch.equal(made[f"transformer.to_{part}.lora_A.weight"], lora["qkv.lora_down.weight"])
        up = lora["qkv.lora_up.weight"][i : i + 2]
        assert torch.equal(made[f"transformer.to_{part}.lora_B.weight"], up / 2)


def test_a_layer_whose_halves_are_exchanged():
    lora = layer("ada", 4, alpha=None)
    made = diffusers_tensors(lora, Export("SD3", {"ada": (Part("t.norm", torch.tensor([2, 3, 0, 1])),)}))
    assert torch.equal(made["t.norm.lora_B.weight"], lora["ada.lora_up.weight"].roll(2, 0))


def test_layers_without_a_place_are_refused_by_name():
    lora = layer("known", 2) | layer("strange", 2)
    with pytest.raises(UserError, match=r"1 of the LoRA's 2 layers .* model of Radiance \(first: strange\)"):
        diffusers_tensors(lora, Export("Radiance", {"known": (Part("t.known"),)}))


@pytest.mark.parametrize("rows", [torch.arange(3), torch.tensor([0, 1, 2, 3, 3]), torch.arange(1, 5)])
def test_a_split_that_does_not_hold_every_row_once_is_refused(rows):
    with pytest.raises(UserError, match="layer qkv of Flux has 4 output rows"):
        diffusers_tensors(layer("qkv", 4), Export("Flux", {"qkv": (Part("t.to_q", rows),)}))


def test_an_unknown_form_is_a_programmers_error(tmp_path):
    with pytest.raises(ValueError, match="cannot write the form 'onnx'"):
        write_form(layer("x", 2), tmp_path / "x.safetensors", "onnx", None, (2, 1.0), {})


@pytest.fixture(scope="module")
def unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**UNET).requires_grad_(False)


def adapted(unet) -> list[str]:
    from dreambooth_dpo.dpo_core.training.targets import target_layers

    return list(target_layers(unet, "all"))


def test_names_of_a_unets_layers_are_read_back_from_keys(unet):
    names = adapted(unet)
    assert len(names) > 60
    assert [unet_layer("lora_unet_" + name.replace(".", "_")) for name in names] == names


@pytest.mark.parametrize(
    "key",
    [
        "lora_unet_input_blocks_4_1_proj_in",
        "lora_unet_double_blocks_0_img_attn_qkv",
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
        "lora_unet_down_blocks_0_attentions_0_something",
        "lora_unet_conv_in",
    ],
)
def test_other_names_are_no_layers_of_a_unet(key):
    assert unet_layer(key) is None


def kohya(unet) -> dict[str, torch.Tensor]:
    """A random LoRA of every layer, rank 4 and alpha 3: alpha / rank is no power of two."""
    draws, lora = torch.Generator().manual_seed(1), {}
    for name in adapted(unet):
        weight, key = unet.get_submodule(name).weight, "lora_unet_" + name.replace(".", "_")
        lora[f"{key}.lora_down.weight"] = torch.randn(4, *weight.shape[1:], generator=draws)
        lora[f"{key}.lora_up.weight"] = torch.randn(len(weight), 4, *[1] * (weight.ndim - 2), generator=draws)
        lora[f"{key}.alpha"] = torch.tensor(3.0)
    return lora


def test_an_exported_file_changes_diffusers_weights_as_the_adapter_does(unet, tmp_path):
    """By the real loader of StableDiffusionPipeline, fused: relative difference below 1e-6 in every layer."""
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader
    from diffusers.models import UNet2DConditionModel

    lora = kohya(unet)
    save_file(lora, tmp_path / "lora.safetensors", metadata={"format": "pt", "dreambooth_dpo.concept": "sks größe"})
    count = export_file(tmp_path / "lora.safetensors", tmp_path / "out.safetensors")
    assert count == len(adapted(unet))
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        told = file.metadata()
    assert told == {"format": "pt", "dreambooth_dpo.format": "diffusers", "dreambooth_dpo.concept": "sks größe"}
    model = UNet2DConditionModel(**UNET)
    model.load_state_dict(unet.state_dict())
    state, alphas = Loader.lora_state_dict(
        str(tmp_path), weight_name="out.safetensors", local_files_only=True, unet_config=model.config
    )[:2]
    Loader.load_lora_into_unet(state, alphas, model)
    model.fuse_lora()
    fused = {k.replace(".base_layer", ""): v for k, v in model.state_dict().items()}
    for name in adapted(unet):
        key, weight = "lora_unet_" + name.replace(".", "_"), unet.get_submodule(name).weight
        down, up = (lora[f"{key}.lora_{part}.weight"].flatten(1) for part in ("down", "up"))
        change = (0.75 * up @ down).view_as(weight)
        assert float((fused[f"{name}.weight"] - weight - change).norm() / change.norm()) < 1e-6, name


def test_a_file_of_other_names_is_refused(tmp_path):
    save_file(layer("lora_unet_double_blocks_0_img_attn_qkv", 6), tmp_path / "flux.safetensors")
    with pytest.raises(UserError, match="set the format of Save DPO LoRA"):
        export_file(tmp_path / "flux.safetensors", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_with_some_other_names_is_refused_by_them(tmp_path, unet):
    lora = kohya(unet) | layer("lora_unet_conv_in_x", 2)
    assert "lora_unet_conv_in_x" not in unet_export(lora).parts
    save_file(lora, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="first: lora_unet_conv_in_x"):
        export_file(tmp_path / "lora.safetensors", tmp_path / "out.safetensors")


def test_the_file_itself_is_not_overwritten(tmp_path, unet):
    path = tmp_path / "lora.safetensors"
    save_file(kohya(unet), path)
    with pytest.raises(UserError, match="is the LoRA itself"):
        export_file(path, path)
    with pytest.raises(UserError, match="format 'onnx' is unknown"):
        export_file(path, tmp_path / "out.safetensors", "onnx")


def test_the_form_kohya_keeps_the_tensors(tmp_path, unet):
    lora = kohya(unet)
    save_file(lora, tmp_path / "lora.safetensors")
    export_file(tmp_path / "lora.safetensors", tmp_path / "out.safetensors", "kohya")
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == lora.keys() and all(torch.equal(found[k], lora[k]) for k in lora)
