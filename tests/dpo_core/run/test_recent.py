"""Tests that images are kept in memory from writing to reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.records import Candidate
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.recent import RecentPictures


def picture(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


def test_image_is_handed_out_once():
    recent = RecentPictures()
    recent.put("a", 0, picture(1))
    assert recent.take("b", 0) is None and recent.take("a", 1) is None
    assert np.array_equal(recent.take("a", 0), picture(1)) and recent.take("a", 0) is None and recent.bytes == 0


def test_oldest_images_are_dropped_first():
    """12 bytes an image, room for two."""
    recent = RecentPictures(limit=24)
    for position in (0, 1, 0, 2):
        recent.put("a", position, picture(position))
    assert recent.bytes == 24 and recent.take("a", 1) is None
    assert np.array_equal(recent.take("a", 0), picture(0)) and np.array_equal(recent.take("a", 2), picture(2))


def test_image_above_the_limit_is_not_kept():
    recent = RecentPictures(limit=11)
    recent.put("a", 0, picture(1))
    assert recent.take("a", 0) is None and recent.bytes == 0


def test_kept_image_is_a_copy():
    recent, pixels = RecentPictures(), picture(1)
    recent.put("a", 0, pixels)
    pixels[:] = 9
    assert np.array_equal(recent.take("a", 0), picture(1))


@pytest.fixture
def written(tmp_path: Path) -> tuple[RunFolder, np.ndarray]:
    run, images = RunFolder(tmp_path), np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    run.add_chunk("round_0", [Candidate(i, 0, "p", i, 0, i) for i in range(3)], torch.zeros(3, 1, 1, 1), images)
    return run, images


def test_memory_and_file_hold_the_same(written):
    run, images = written
    for read in (run.images("round_0"), run.images("round_0"), RunFolder(run.path).images("round_0")):
        assert read.dtype == np.uint8 and np.array_equal(read, images)


def test_missing_file_is_reported_even_if_the_image_is_in_memory(written):
    run, _ = written
    run.image_path("round_0", 1).unlink()
    with pytest.raises(UserError, match="recorded but missing"):
        run.images("round_0")
