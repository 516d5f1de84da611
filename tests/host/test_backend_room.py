"""Number of pictures per batch, from ComfyUI's memory estimate and free memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from native_models import DRAWING, PROMPTS, furthest

from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.sampling.sets import sample_set
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")

AUTO = DRAWING.model_copy(update={"batch_size": 0})
GIB = 2**30


@pytest.fixture
def native(comfyui: Path) -> ComfyTextToImage:
    return ComfyTextToImage(*native_toybox(), 64, 64)


@pytest.fixture
def told(native, monkeypatch):
    """A function that fakes ComfyUI's memory numbers, in GiB: tell(free, reserved).

    The estimate is 1 GiB per row of a batch. It returns the list of shapes that an estimate was requested for.
    """
    import comfy.model_management as management

    shapes: list[list[int]] = []

    def needed(shape, cond_shapes=None):
        shapes.append(list(shape))
        return shape[0] * GIB

    def tell(free: float, reserved: float = 0.0) -> list[list[int]]:
        monkeypatch.setattr(management, "get_free_memory", lambda *_, **__: free * GIB)
        monkeypatch.setattr(management, "extra_reserved_memory", lambda: reserved * GIB)
        monkeypatch.setattr(native.patcher.model, "memory_required", needed)
        return shapes

    return tell


@pytest.mark.parametrize(
    ("free", "reserved", "count"),
    # Two rows per picture, so 2 GiB each. Four fifths of 10 GiB hold 4 pictures; so do those of 11.5 with 1.5 reserved.
    [(10, 0, 4), (11.5, 1.5, 4), (100, 0, 16), (1, 0, 1), (0.5, 1, 1)],
)
def test_the_batch_fits_the_hosts_estimate_into_free_memory(native, told, free, reserved, count):
    shapes = told(free, reserved)
    assert native.pictures_at_once(AUTO, 16) == count
    assert shapes == [[2, 4, 16, 16]]


def test_the_model_is_loaded_first_and_memory_is_requested_for_the_whole_batch(native, told, monkeypatch):
    """ComfyUI may offload weights to make room for one picture; for more it may only offload other models."""
    import comfy.model_management as management

    told(10)
    asked, load = [], management.load_models_gpu

    def loading(models, memory_required=0, minimum_memory_required=None, **more):
        asked.append((models, memory_required, minimum_memory_required))
        load(models)

    monkeypatch.setattr(management, "load_models_gpu", loading)
    native.pictures_at_once(AUTO, 16)
    assert asked == [([native.patcher], 32 * GIB, 2 * GIB)]
    assert any(loaded is native.patcher for loaded in management.loaded_models())


@pytest.mark.parametrize(
    ("sampler", "count"), [("euler_ancestral", 8), ("lcm", 8), ("dpmpp_2m_sde", 8), ("dpmpp_2m", 1)]
)
def test_memory_is_ignored_if_the_batch_size_changes_the_pictures(native, told, sampler, count):
    told(1)
    native.sampler = sampler
    assert native.pictures_at_once(AUTO, 16) == count
    assert native.pictures_at_once(AUTO, 3) == min(count, 3)


def test_a_set_is_drawn_in_parts_that_fit(native, told, monkeypatch, tmp_path):
    """20 candidates are a batch of 16 and one of 4; drawn three at a time they equal those without a limit."""
    counts, sample = [], native.sample
    monkeypatch.setattr(native, "sample", lambda prompts, *more: counts.append(len(prompts)) or sample(prompts, *more))
    monkeypatch.setattr(native, "pictures_at_once", lambda settings, most: 3)
    drawn = []
    for name, settings in (("few", AUTO), ("all", AUTO.model_copy(update={"batch_size": 16}))):
        with RunFolder(tmp_path / name) as run:
            sample_set(run, "set", native, PROMPTS[:2], 10, settings, 5, 0)
            drawn.append((run.candidates("set"), run.latents("set")))
    assert counts == [3, 3, 3, 3, 3, 1, 3, 1, 16, 4]
    assert drawn[0][0] == drawn[1][0] and furthest(drawn[0][1], drawn[1][1]) < 1e-4


def test_with_the_real_memory_of_this_machine(native):
    """The toybox's estimate for 16 pictures fits into any machine's memory."""
    import comfy.model_management as management

    each = native.patcher.model.memory_required([2, 4, 16, 16])
    expected = max(
        1, min(16, int(0.8 * (management.get_free_memory(native.device) - management.extra_reserved_memory()) / each))
    )
    assert native.pictures_at_once(AUTO, 16) == pytest.approx(expected, abs=1)
    assert native.sample(PROMPTS[:expected], list(range(len(PROMPTS[:expected]))), AUTO).isfinite().all()
