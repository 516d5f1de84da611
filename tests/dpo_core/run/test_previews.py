"""Tests previews: small, made once, named by content, and served from their folder only."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.records import Candidate
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.previews import (
    candidate_previews,
    find_preview,
    picture_mark,
    previews_folder,
    reference_previews,
)

SET = "candidates_0123456789ab"


@pytest.fixture
def run(tmp_path: Path):
    """A set of three images of 64 pixels."""
    with RunFolder(tmp_path / "run") as opened:
        add(opened, np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))
        yield opened


def add(run: RunFolder, images: np.ndarray) -> None:
    listed = [Candidate(i, 0, "a sks robot", i, 0, i) for i in range(len(images))]
    run.add_chunk(SET, listed, torch.zeros(len(images), 4, 8, 8), images)


def seen(run: RunFolder, name: str) -> np.ndarray:
    with Image.open(previews_folder(run.path, SET) / name) as picture:
        assert picture.format == "WEBP"
        return np.asarray(picture.convert("RGB"))


def test_small_images_are_stored_without_loss(run: RunFolder):
    names, marks = candidate_previews(run, SET)
    for i, (name, mark) in enumerate(zip(names, marks, strict=True)):
        pixels = run.images(SET, [i])[0]
        assert name == f"{i:05d}_{mark}.webp" and mark == picture_mark(pixels)
        assert np.array_equal(seen(run, name), pixels)


def test_large_images_are_reduced(tmp_path: Path):
    with RunFolder(tmp_path / "large") as run:
        add(run, np.full((1, 512, 1024, 3), 90, np.uint8))
        assert seen(run, candidate_previews(run, SET)[0][0]).shape == (192, 384, 3)


def test_previews_are_made_once(run: RunFolder):
    names, _ = candidate_previews(run, SET)
    paths = [previews_folder(run.path, SET) / n for n in names]
    before = [p.stat().st_mtime_ns for p in paths]
    calls = []
    run.images = lambda *a: calls.append(a)
    assert candidate_previews(run, SET)[0] == names
    assert [p.stat().st_mtime_ns for p in paths] == before and not calls


def test_missing_preview_is_made_again_and_changed_image_gets_another_name(run: RunFolder):
    names, marks = candidate_previews(run, SET)
    (previews_folder(run.path, SET) / names[0]).unlink()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(run.image_path(SET, 1))
    again, others = candidate_previews(run, SET)
    assert again[0] == names[0] and again[2] == names[2] and (previews_folder(run.path, SET) / again[0]).is_file()
    assert again[1] != names[1] and others[1] != marks[1] and not seen(run, again[1]).any()


def test_copied_run_has_the_same_hashes(run: RunFolder):
    _, marks = candidate_previews(run, SET)
    for i in range(3):
        os.utime(run.image_path(SET, i), (1, 1))
    assert candidate_previews(run, SET)[1] == marks


def test_missing_image_is_named(run: RunFolder):
    path = run.image_path(SET, 1)
    path.unlink()
    with pytest.raises(UserError, match="is recorded but missing"):
        candidate_previews(run, SET)


def test_progress_is_reported(run: RunFolder):
    told = []
    candidate_previews(run, SET, lambda stage, done, total, **_: told.append((stage, done, total)))
    assert told == [(f"previews {SET}", 3, 3)]


def test_first_reference_photos_have_previews(run: RunFolder):
    photos = np.random.default_rng(1).integers(0, 256, (10, 40, 30, 3), dtype=np.uint8)
    names = reference_previews(run, SET, photos)
    assert len(names) == 8 and names[3].startswith("reference_03_")
    assert np.array_equal(seen(run, names[3]), photos[3])


def test_a_preview_is_found_in_its_folder(run: RunFolder):
    name = candidate_previews(run, SET)[0][0]
    assert find_preview(run.path, SET, name) == (previews_folder(run.path, SET) / name).resolve()
    assert find_preview(run.path, SET, f"00007_{'0' * 12}.webp") is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../records.sqlite", "../../records.sqlite", "..\\records.sqlite", "/etc/passwd",
     "records.sqlite", "00000_0123456789ab.webp/..", "00000_0123456789ab.webp\n", "00000_0123456789AB.webp",
     "٠٠٠٠٠_0123456789ab.webp", "%2e%2e", "00000_0123456789ab.png", "\x00"],
)  # fmt: skip
def test_invalid_name_is_not_looked_up(run: RunFolder, name: str):
    assert find_preview(run.path, SET, name) is None


@pytest.mark.parametrize("set_name", ["", ".", "..", "../other", SET + "/..", "a/b", "a\\b", "/", "A", "candidates_\n"])
def test_invalid_set_name_is_not_looked_up(run: RunFolder, set_name: str):
    name = candidate_previews(run, SET)[0][0]
    assert find_preview(run.path, set_name, name) is None


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_link_out_of_the_folder_is_refused(run: RunFolder, tmp_path: Path):
    name = candidate_previews(run, SET)[0][0]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / name).write_bytes(b"secret")
    linked = f"00001_{'a' * 12}.webp"
    (previews_folder(run.path, SET) / linked).symlink_to(outside / name)
    assert find_preview(run.path, SET, linked) is None
    (run.path / "elsewhere").mkdir()
    (run.path / "elsewhere" / "previews").symlink_to(outside, target_is_directory=True)
    assert find_preview(run.path, "elsewhere", name) is None
