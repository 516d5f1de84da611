"""Tests that hashes of weights change with any value, and equal those stored in run folders."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.hashing import update_with_tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.float8_e4m3fn)


def digest(tensor: torch.Tensor) -> str:
    found = hashlib.sha256()
    update_with_tensor(found, tensor)
    return found.hexdigest()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [0, 1, 3, 4095, 4097, 20_001])
def test_any_changed_value_changes_the_hash(dtype: torch.dtype, size: int) -> None:
    values = torch.arange(size).remainder(7).to(dtype)
    assert digest(values) == digest(values.clone())
    for place in {0, size // 2, size - 1} if size else ():
        changed = values.clone()
        changed[place] = 9
        assert digest(changed) != digest(values), place


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_hash_equals_that_of_version_0_1(values: list[float]) -> None:
    """Of float32 [n]: sha256 of the first 4096 values' bytes, then of the int64 sum of their bits as int32."""
    array = np.asarray(values, np.float32)
    expected = hashlib.sha256(array[:4096].tobytes() + np.int64(array.view(np.int32).astype(np.int64).sum()).tobytes())
    assert digest(torch.from_numpy(array)) == expected.hexdigest()


def test_non_contiguous_tensor_is_hashed_by_its_values() -> None:
    square = torch.arange(16.0).view(4, 4)
    assert digest(square.T) == digest(square.T.contiguous()) != digest(square)


class Packed(torch.Tensor):
    """Stands for a GGUF loader's tensor: it says the shape of the weight, and holds another number of bytes."""

    @property
    def shape(self) -> torch.Size:
        return torch.Size([4, 64])

    def detach(self) -> torch.Tensor:
        return self


def test_a_tensor_that_says_another_shape_is_hashed_by_its_own_data() -> None:
    data = torch.arange(136, dtype=torch.uint8)
    assert digest(data.clone().as_subclass(Packed)) == digest(data)
    other = data.clone()
    other[-1] += 1
    assert digest(other.as_subclass(Packed)) != digest(data)
