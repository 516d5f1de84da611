"""What a weights file is, in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreambooth_dpo.metrics import model_files
from dreambooth_dpo.metrics.embedders import load_embedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.file_kinds import kind_of_file, kind_of_names, short_reason
from dreambooth_dpo.metrics.model_files import without_hub


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["lora_unet_x_to_q.lora_down.weight", "lora_unet_x_to_q.alpha"], "a LoRA"),
        (["unet.down_blocks.0.attn1.to_q.lora_A.weight"], "a LoRA"),
        (["lora_unet_x.hada_w1_a"], "a LoRA"),
        (["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.mid.x"], "a whole checkpoint"),
        (["down_blocks.0.resnets.0.conv1.weight"], "a diffusion model"),
        (["double_blocks.0.img_attn.qkv.weight"], "a diffusion model"),
        (["decoder.up_blocks.0.resnets.0.conv1.weight", "encoder.down_blocks.0.x"], "a diffusion model"),
        (["decoder.up.0.block.0.conv1.weight"], "a VAE"),
        (["text_model.embeddings.token_embedding.weight"], "a text encoder"),
        (["visual.conv1.weight", "transformer.resblocks.0.ln_1.weight", "logit_scale"], None),
        (["vision_model.post_layernorm.weight", "text_model.final_layer_norm.weight"], None),
        (["embeddings.cls_token", "encoder.layer.0.norm1.weight"], None),
        ([], None),
    ],
)
def test_kinds_by_names(names: list[str], kind: str | None) -> None:
    found = kind_of_names(["__metadata__", *names])
    assert found is None if kind is None else found.startswith(kind)


def test_a_lora_is_named_instead_of_a_list_of_its_tensors(tmp_path: Path) -> None:
    lora = tmp_path / "mine.safetensors"
    save_file({"lora_unet_x_to_q.lora_down.weight": torch.zeros(2, 2)}, lora)
    with pytest.raises(MetricsError, match=r"^mine\.safetensors is a LoRA, which cannot score pictures: "):
        load_embedder(f"ViT-B-32={lora}")


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff" * 40, b"\x10" + b"\0" * 7 + b"{}", b"\x04" + b"\0" * 7 + b"abcd"]
)
def test_broken_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    assert kind_of_file(path) == "no whole .safetensors file (damaged, or its download broke off)"


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pointer.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", encoding="utf-8")
    assert kind_of_file(path) == "a pointer of Git LFS and not the file itself (run `git lfs pull`)"


def test_the_dump_of_torch_becomes_counts() -> None:
    """Two layers against one of another width: 2 missing, 2 unexpected, 1 of another shape."""
    here = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2, bias=False), "b": torch.nn.Linear(2, 2)})
    there = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2, bias=False), "c": torch.nn.Linear(2, 2)})
    with pytest.raises(RuntimeError) as raised:
        here.load_state_dict(there.state_dict())
    assert short_reason(raised.value) == (
        "2 tensors are missing (first: b.weight); 2 tensors are unexpected (first: c.weight); "
        "1 tensors have another shape (first: a.weight)"
    )


def test_hints_at_hub_names_can_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(MetricsError) as raised:
        model_files.check_clip_folder(tmp_path / "gone")
    assert "hf-hub:" in str(raised.value) and "hf-hub:" not in without_hub(str(raised.value))
    assert without_hub(str(raised.value)).endswith("or give another folder.")
