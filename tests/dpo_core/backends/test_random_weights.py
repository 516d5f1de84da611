"""Checkpoints of random weights: names, shapes, scale of values, and equal files from equal seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dreambooth_dpo.dpo_core.backends.random_weights import write_random_checkpoint
from dreambooth_dpo.dpo_core.errors import UserError

LAYOUT = {
    "layer.weight": torch.empty(2048, 2048, device="meta"),
    "conv.weight": torch.empty(8, 4, 3, 3, device="meta"),
    "layer.bias": torch.empty(64, device="meta"),
    "norm.weight": torch.empty(64, device="meta"),
    "token_embedding.weight": torch.empty(100, 16, device="meta"),
    "embeddings.position_ids": torch.empty(1, 5, device="meta"),
    "logit_scale": torch.empty((), device="meta"),
}


def test_a_file_has_the_layouts_names_and_values_that_keep_activations_finite(tmp_path: Path) -> None:
    write_random_checkpoint(LAYOUT, tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    assert {k: v.shape for k, v in tensors.items()} == {k: v.shape for k, v in LAYOUT.items()}
    assert all(t.dtype == torch.float16 and t.isfinite().all() for t in tensors.values())
    assert float(tensors["layer.weight"].float().std()) == pytest.approx(2048**-0.5, rel=0.02)
    assert float(tensors["conv.weight"].float().std()) == pytest.approx(1 / 6, rel=0.2)
    assert not tensors["layer.bias"].any() and (tensors["norm.weight"] == 1).all()
    assert tensors["embeddings.position_ids"].tolist() == [[0, 1, 2, 3, 4]]


def test_files_are_equal_exactly_for_equal_seeds(tmp_path: Path) -> None:
    small = {"a.weight": torch.empty(4, 4), "b.weight": torch.empty(4, 4)}
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        write_random_checkpoint(small, tmp_path / name, seed)
    one, again, other = ((tmp_path / name).read_bytes() for name in ("one", "again", "other"))
    assert one == again != other
    assert not torch.equal(*load_file(tmp_path / "one").values())


def test_a_file_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_random_checkpoint({}, tmp_path / "file" / "a.safetensors")
