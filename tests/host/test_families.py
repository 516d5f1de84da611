"""Architectures of ComfyUI: some of benchmarks.families by its own check; `-m slow` takes all of them."""

from __future__ import annotations

import pytest

from dreambooth_dpo.benchmarks.families.check import check, passes
from dreambooth_dpo.benchmarks.families.zoo import ZOO

pytestmark = pytest.mark.usefixtures("comfyui")
FEW = ("SDXL", "SD3.5-medium", "Flux2-klein", "Z-Image", "Qwen-Image", "Krea2", "Anima", "HiDream", "PixelDiT")
"""Tensors of one frame, prompts without padding, values beside tensors, blocks of unknown names, in-place writes."""
REFUSED = ("HiDreamO1",)


def right(name: str) -> None:
    row = check(name)
    if "absent" in row:
        pytest.skip(row["absent"])
    assert passes(row), row
    assert row["hooks"]["unused"] == []


@pytest.mark.parametrize("name", FEW)
def test_an_architecture_draws_trains_and_saves(name: str):
    right(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ZOO if name not in (*FEW, *REFUSED)])
def test_every_other_architecture_draws_trains_and_saves(name: str):
    right(name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_by_name(name: str):
    row = check(name)
    if "absent" in row:
        pytest.skip(row["absent"])
    assert row["refused"].startswith(f"{name} cannot be trained: ")
