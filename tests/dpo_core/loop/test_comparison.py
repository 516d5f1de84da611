"""Tests the names of compared LoRAs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.loop.comparison import entries


def files(tmp_path: Path, *names: str) -> list[Path]:
    paths = [tmp_path / name for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    return paths


def test_names_are_told_apart_by_folders_and_strengths(tmp_path: Path) -> None:
    two = files(tmp_path, "a/last.safetensors", "b/last.safetensors")
    given = entries([(file, strength) for file in two for strength in (0.5, 1.0)])
    assert [e.name for e in given] == ["a/last at 0.5", "a/last at 1", "b/last at 0.5", "b/last at 1"]
    assert len({(e.digest, e.strength) for e in given}) == 4
    assert [e.name for e in entries([(file, 0.5) for file in two])] == ["a/last", "b/last"]


def test_the_same_lora_twice_and_strength_zero_are_refused(tmp_path: Path) -> None:
    one, other = files(tmp_path, "one.safetensors", "other.safetensors")
    other.write_bytes(one.read_bytes())
    with pytest.raises(UserError, match=r"other.safetensors holds the same LoRA as .*one.safetensors"):
        entries([(one, 1.0), (other, 1.0)])
    with pytest.raises(UserError, match="strength 0 is the model without a LoRA"):
        entries([(one, 0.0)])
