"""LoRA files that nodes write: names, numbers and metadata."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

import pytest
import torch
from folder_names import texts
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.nodes.stages.save import check_prefix, save_numbered


@pytest.fixture
def loras(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's first of two folders for LoRAs."""
    import folder_paths

    first, second = tmp_path / "loras", tmp_path / "more loras"
    second.mkdir()
    known = ([str(first), str(second)], folder_paths.folder_names_and_paths["loras"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", known)
    return first


class Lora(dict):
    """A LoRA as the train step returns it."""

    rank, alpha = 4, 2.0
    metadata = {"dreambooth_dpo.concept": "sks größe", "dreambooth_dpo.pairs": "17"}


def tensors(rank: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    name = "lora_unet_mid_block_attentions_0_proj_in"
    return {
        f"{name}.lora_down.weight": torch.randn(rank, 8, generator=draw),
        f"{name}.lora_up.weight": torch.randn(8, rank, generator=draw),
        f"{name}.alpha": torch.tensor(2.0),
    }


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_a_lora_is_saved_with_its_rank_and_metadata(loras):
    lora = Lora(tensors())
    name = save_numbered(lora, "dreambooth_dpo/my_dog")
    assert Path(name) == Path("dreambooth_dpo/my_dog_00001.safetensors")
    found = load_file(loras / name)
    assert found.keys() == lora.keys() and all(torch.equal(found[k], lora[k]) for k in lora)
    told = header(loras / name)
    assert (told["ss_network_dim"], told["ss_network_alpha"], told["ss_network_module"]) == (
        "4",
        "2.0",
        "networks.lora",
    )
    assert told.items() >= Lora.metadata.items()


def test_the_name_is_the_one_that_the_stock_loader_lists(loras):
    import folder_paths

    from nodes import LoraLoader

    name = save_numbered(Lora(tensors()), "dreambooth_dpo/my_dog")
    assert name in LoraLoader.INPUT_TYPES()["required"]["lora_name"][0]
    assert Path(folder_paths.get_full_path("loras", name)) == loras / name


def test_nothing_is_overwritten_and_numbers_rise(loras):
    names = [save_numbered(Lora(tensors(seed=i)), "мой кот") for i in range(3)]
    assert names == [f"мой кот_{i:05d}.safetensors" for i in (1, 2, 3)]
    (loras / names[1]).unlink()
    assert save_numbered(Lora(tensors()), "мой кот") == "мой кот_00004.safetensors"
    kept = load_file(loras / names[0])
    assert all(torch.equal(kept[k], v) for k, v in tensors(seed=0).items())
    assert sorted(p.name for p in loras.iterdir()) == [f"мой кот_{i:05d}.safetensors" for i in (1, 3, 4)]


def test_only_files_of_exactly_this_prefix_count(loras):
    loras.mkdir()
    for other in ("dog_99999x", "dog_", "my_dog_00050", "d.g_00070", "dog"):
        (loras / f"{other}.safetensors").touch()
    (loras / "dog_00060.txt").touch()
    assert save_numbered(Lora(tensors()), "dog") == "dog_00001.safetensors"
    (loras / "dog_99999.safetensors").touch()
    assert save_numbered(Lora(tensors()), "dog") == "dog_100000.safetensors"
    assert save_numbered(Lora(tensors()), "d.g") == "d.g_00071.safetensors"


def test_a_file_whose_name_differs_only_in_case_is_kept(loras, monkeypatch):
    """On a case-insensitive file system "Dog_00001" and "dog_00001" are one file."""
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name == "dog_00001.safetensors" or exists(path))
    assert save_numbered(Lora(tensors()), "dog") == "dog_00002.safetensors"


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "/x",
        "x/",
        "../x",
        "a/../b",
        "a//b",
        "C:\\x",
        "C:/x",
        "..\\..\\x",
        "a/con",
        "a/b.",
        "~/../x",
        "x\n",
        "\ud800",
    ],
)
def test_a_prefix_that_leaves_the_folder_is_refused(loras, prefix):
    assert check_prefix(prefix).startswith(f"filename_prefix {prefix!r} is not a valid name under models/loras")
    with pytest.raises(UserError, match="use plain folder and file names"):
        save_numbered(Lora(tensors()), prefix)
    assert not loras.exists()


@settings(max_examples=300, deadline=None)
@given(prefix=st.lists(texts, min_size=1, max_size=3).map("/".join))
def test_no_accepted_prefix_leaves_the_folder(prefix):
    if check_prefix(prefix) is None:
        base = os.path.realpath("/loras")
        path = os.path.realpath(os.path.join(base, prefix.replace("\\", "/")))
        assert path.startswith(base + os.sep)
        assert not PureWindowsPath(prefix).anchor and ".." not in PureWindowsPath(prefix).parts


def test_backslashes_separate_folders(loras):
    assert Path(save_numbered(Lora(tensors()), "a\\b\\dog")) == Path("a/b/dog_00001.safetensors")
    assert (loras / "a" / "b" / "dog_00001.safetensors").is_file()


@pytest.mark.parametrize(
    "lora",
    [{}, {"x.alpha": torch.tensor(1.0)}, {"x.hada_w1_a": torch.zeros(2, 2)}, {"x.lora_A.weight": torch.zeros(2, 2)}],
    ids=["empty", "alpha", "LoHa", "PEFT"],
)
def test_a_lora_without_weights_of_its_kind_is_refused(loras, lora):
    with pytest.raises(UserError, match="connect the lora output of DPO LoRA Train Step"):
        save_numbered(lora, "dog")
    assert not loras.exists()


def test_rank_and_alpha_of_a_plain_dict_are_read_from_its_tensors(loras):
    """ComfyUI's own training node returns a plain dict without metadata."""
    told = header(loras / save_numbered(tensors(rank=3), "theirs"))
    assert (told["ss_network_dim"], told["ss_network_alpha"]) == ("3", "2.0")
    without = {k: v for k, v in tensors(rank=3).items() if not k.endswith(".alpha")}
    assert header(loras / save_numbered(without, "theirs"))["ss_network_alpha"] == "3.0"
