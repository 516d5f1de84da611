"""Damage of safetensors files, seen from the header alone."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from dreambooth_dpo.dpo_core.weights_file import damage, read_header


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "Gewichte – 犬.safetensors"
    save_file({"a": torch.zeros(3, 2), "b": torch.zeros(4, dtype=torch.float16)}, path, metadata={"x": "y"})
    return path


def test_a_whole_file_has_no_damage(whole, tmp_path):
    assert damage(whole) is None
    assert {k: v["shape"] for k, v in read_header(whole).items() if k != "__metadata__"} == {"a": [3, 2], "b": [4]}
    save_file({}, tmp_path / "nothing.safetensors")
    assert damage(tmp_path / "nothing.safetensors") is None


@pytest.mark.parametrize("lost", [1, 20, 32])
def test_a_file_that_is_cut_off_says_by_how_much(whole, lost):
    """32 bytes of data: 6 values of 4 bytes and 4 of 2."""
    size = whole.stat().st_size
    whole.write_bytes(whole.read_bytes()[: size - lost])
    assert f"is cut off ({size - lost} of {size} bytes)" in damage(whole)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"1234567", "has no safetensors header"),
        (b"PK\x03\x04" + b"x" * 100, "has no safetensors header"),
        ((1000).to_bytes(8, "little") + b'{"a": ', "has no safetensors header"),
        ((2).to_bytes(8, "little") + json.dumps([]).encode(), "has no safetensors header"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer (63 bytes"),
    ],
)
def test_other_files_are_named(tmp_path, content, reason):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert re.search(re.escape(reason), damage(path)) and str(path) in damage(path)
