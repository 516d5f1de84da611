"""Save DPO LoRA: the two formats, and the saved file against the adapter by ComfyUI's own loader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from native_models import ADAPTER, adapter_state, random_model
from safetensors.torch import load_file, save_file

from dreambooth_dpo.dpo_core.backends.comfyui import (
    LiveAdapter,
    check_lora,
    export_of,
    lora_prefixes,
    with_live_adapter,
)
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import lora_tensors
from dreambooth_dpo.nodes.stages.save import save_numbered, saved_words

SPLIT = "transformer.transformer_blocks.0.attn.to_k.lora_B.weight"


@pytest.fixture
def loras(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import folder_paths

    known = ([str(tmp_path)], folder_paths.folder_names_and_paths["loras"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", known)
    return tmp_path


def trained(kind: str) -> tuple:
    """(MODEL, MODEL with the live adapter, its LoRA as the train step returns it)"""
    from dreambooth_dpo.nodes.stages.train import DPOLora

    model = random_model(kind)
    with torch.inference_mode(False):
        adapter = Adapter(model.model.diffusion_model, ADAPTER)
        adapter.load(adapter_state(adapter))
    prefixes = lora_prefixes(model.model, adapter.layers)
    lora = DPOLora(lora_tensors(adapter, prefixes))
    lora.rank, lora.alpha, lora.metadata = ADAPTER.rank, ADAPTER.alpha, {}
    lora.export = export_of(model.model, prefixes)
    return model, with_live_adapter(model, LiveAdapter(adapter.state(), ADAPTER)), lora


@pytest.mark.parametrize("kind", ["sd", "sdxl", "flux"])
@pytest.mark.parametrize("live", [False, True])
def test_a_saved_file_is_equal_to_the_adapter(loras, kind, live):
    base, adapted, lora = trained(kind)
    name = save_numbered(lora, "x")
    check = check_lora(adapted if live else base, load_file(loras / name), lora)
    assert check.unread == () and check.worst < 1e-6 and check.rounding is None
    assert check.layers == len(lora) / 3
    of = "the adapter on the connected MODEL" if live else "the LoRA"
    said = saved_words(name, lora, "kohya", adapted if live else base)
    assert f"equal to {of} in {check.layers} layers" in said and "Warning" not in said


def test_a_file_that_was_changed_is_warned_of(loras):
    """A value of one layer is doubled on disk: without a MODEL by its bits, with one by its effect."""
    base, _, lora = trained("flux")
    name = save_numbered(lora, "x")
    first, *where, file = saved_words(name, lora).splitlines()
    assert first == f"saved as {name}" and file == f"File: {loras / name}" and "press R" in where[0]
    other = {k: 2 * v if k.endswith("lora_up.weight") else v for k, v in lora.items()}
    save_file(other, loras / name)
    assert "Warning: the file differs" in saved_words(name, lora)
    assert "differs by up to 1 (relative) from that of the LoRA" in saved_words(name, lora, "kohya", base)


def test_the_adapter_of_another_round_is_warned_of(loras):
    _, adapted, lora = trained("sd")
    for key in lora:
        if key.endswith("lora_up.weight"):
            lora[key] = lora[key] * 3
    name = save_numbered(lora, "x")
    assert "differs by up to 2 (relative) from that of the adapter on the connected MODEL" in saved_words(
        name, lora, "kohya", adapted
    )


def test_a_model_of_another_kind_is_warned_of(loras):
    _, _, lora = trained("flux")
    said = saved_words(save_numbered(lora, "x"), lora, "kohya", random_model("sd"))
    assert f"Warning: ComfyUI's Load LoRA reads 0 of {len(lora) // 3} layers of the LoRA" in said


def test_weights_of_8_bits_are_said_to_need_bypass(loras):
    """A LoRA without a note, as of ComfyUI's own trainer."""
    base, _, lora = trained("flux")
    for module in base.model.diffusion_model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.to(torch.float8_e4m3fn)
    from dreambooth_dpo.dpo_core.backends.comfyui import host

    name = save_numbered(lora, "x")
    if (rounding := host.rounding_of_merge(base, lora)) is None:
        pytest.skip("this ComfyUI does not give a merged weight")
    said = saved_words(name, lora, "kohya", base)
    assert "equal to the LoRA" in said
    assert "Warning: the base model's weights have 8 bits or fewer. Load this LoRA in bypass mode" in said
    assert f"off by {rounding:.0%}" in said


def test_the_format_diffusers_splits_fused_layers(loras):
    _, adapted, lora = trained("flux")
    name = save_numbered(lora, "x", "diffusers")
    found = load_file(loras / name)
    assert all(key.startswith("transformer.") for key in found)
    fused, width = "lora_unet_double_blocks_0_img_attn_qkv", 64
    up = lora[f"{fused}.lora_up.weight"][width : 2 * width]
    assert torch.equal(found[SPLIT], up * ADAPTER.alpha / ADAPTER.rank)
    assert check_lora(adapted, found, lora).worst < 1e-6
    assert "Warning" not in saved_words(name, lora, "diffusers", adapted)
    assert saved_words(name, lora, "diffusers").splitlines()[0] == f"saved as {name}"


def test_a_unets_diffusers_file_is_said_not_to_be_for_comfyui(loras):
    base, _, lora = trained("sd")
    said = saved_words(save_numbered(lora, "x", "diffusers"), lora, "diffusers", base)
    assert "This file is for diffusers: ComfyUI's Load LoRA reads" in said and "Warning" not in said


def test_a_plain_lora_takes_its_names_from_the_model(loras):
    base, _, lora = trained("flux")
    plain = dict(lora)
    with pytest.raises(UserError, match="connect the MODEL that it was trained on to model"):
        save_numbered(plain, "x", "diffusers")
    assert not list(loras.glob("*.safetensors"))
    found = load_file(loras / save_numbered(plain, "x", "diffusers", base))
    mine = load_file(loras / save_numbered(lora, "x", "diffusers"))
    assert found.keys() == mine.keys() and all(torch.equal(found[k], mine[k]) for k in mine)


def test_saved_graphs_stay_valid(nodes):
    """The widgets that graphs hold keep their places; the new inputs are optional and last."""
    found = nodes["DBDPO_SaveLora"].GET_SCHEMA().inputs
    assert [i.id for i in found] == ["lora", "filename_prefix", "format", "model", "join_lora"]
    assert [bool(i.optional) for i in found] == [False, False, True, True, True]


def test_the_node_checks_its_file_in_inference_mode(loras, nodes, as_nodes_run):
    """As ComfyUI executes nodes."""
    for given in trained("flux")[:2]:
        lora = trained("flux")[2]
        shown = nodes["DBDPO_SaveLora"].execute(lora, "x", "diffusers", given)
        assert "Read back by ComfyUI's loader: equal to" in shown.ui.as_dict()["text"][0]


def test_the_node_without_the_new_inputs_writes_what_it_wrote(loras, nodes):
    _, _, lora = trained("sd")
    shown = nodes["DBDPO_SaveLora"].execute(lora, "x")
    found = load_file(loras / "x_00001.safetensors")
    assert shown.args[0] == "x_00001.safetensors"
    assert found.keys() == lora.keys() and all(torch.equal(found[k], lora[k]) for k in lora)
