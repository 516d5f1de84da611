"""Names of runs and their folders; conversion of pictures to and from IMAGE; hashes."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import torch
from folder_names import BAD, GOOD, texts
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.report.plots.theme import DARK
from dreambooth_dpo.nodes.host.runs import check_name, generation, mark, remember, run_path, tiles, to_image, to_pixels


@pytest.fixture(scope="module")
def output(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """ComfyUI's output folder with a dreambooth_dpo folder in it."""
    import folder_paths

    before, folder = folder_paths.get_output_directory(), tmp_path_factory.mktemp("output – größe")
    folder_paths.set_output_directory(str(folder))
    (folder / "dreambooth_dpo").mkdir()
    yield folder
    folder_paths.set_output_directory(before)


# --- names of runs ---


@pytest.mark.parametrize("name", GOOD)
def test_a_plain_name_is_taken(name):
    assert check_name(name) is None


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_no_folder_name_is_refused(output, name):
    said = check_name(name)
    assert said.startswith(f"run_name {name!r} cannot be a folder name: use ")
    with pytest.raises(UserError, match="cannot be a folder name"):
        run_path(name)
    assert generation(name) == 0


@settings(max_examples=400, deadline=None)
@given(name=texts)
@example(name="con .x")
@example(name="a\x85")
def test_no_accepted_name_leaves_its_folder(output, name):
    base = output / "dreambooth_dpo"
    if check_name(name) is not None:
        return
    path = run_path(name)
    assert path.parent == base and path.name == name and os.path.realpath(path) == os.path.realpath(base / name)
    windows = PureWindowsPath(name)
    assert (windows.parts, windows.drive, windows.root) == ((name,), "", "")
    # The folder can be created under this name, with room for the suffixes of temporary files.
    path.mkdir()
    assert name in os.listdir(base)
    path.rmdir()
    (base / f".{name}_00001.01234567.part.safetensors").touch()
    (base / f".{name}_00001.01234567.part.safetensors").unlink()


def test_a_run_lies_under_the_output_folder(output):
    assert run_path("мой кот") == output / "dreambooth_dpo" / "мой кот"


# --- folders that were taken away ---


def filled(name: str) -> Path:
    """A run's folder as sampling leaves it."""
    path = run_path(name)
    path.mkdir()
    (path / "records.sqlite").touch()
    remember(path)
    return path


def test_a_deleted_folder_counts_once_each_time(output):
    assert generation("gone") == 0, "never drawn into"
    path = filled("gone")
    assert [generation("gone"), generation("gone")] == [0, 0]
    shutil.rmtree(path)
    # All nodes of one graph must get the same count.
    assert [generation("gone") for _ in range(3)] == [1, 1, 1]
    filled("gone")
    assert generation("gone") == 1
    (path / "records.sqlite").unlink()
    assert generation("gone") == 2, "without its records a run is empty"
    shutil.rmtree(path)
    assert generation("gone") == 2


def test_each_folder_has_its_own_count(output):
    shutil.rmtree(filled("one"))
    filled("other")
    assert (generation("one"), generation("other"), generation("never")) == (1, 0, 0)


def test_a_folder_of_an_earlier_session_counts_from_zero(output):
    path = run_path("earlier")
    path.mkdir()
    assert generation("earlier") == 0
    shutil.rmtree(path)
    assert generation("earlier") == 0, "nothing that this session drew was lost"


# --- pictures ---


def pictures(count: int, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_every_grey_value_survives_the_round_trip():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    image = to_image([Image.fromarray(levels[0])])
    assert (image.dtype, tuple(image.shape)) == (torch.float32, (1, 16, 16, 3))
    assert (image.min().item(), image.max().item()) == (0.0, 1.0)
    assert np.array_equal(to_pixels(image), levels)


def test_pictures_survive_the_round_trip():
    shots = pictures(3)
    assert np.array_equal(to_pixels(to_image([Image.fromarray(p) for p in shots])), shots)


def test_pixels_of_unusual_images():
    """Values out of range, an alpha channel, and half precision."""
    image = torch.tensor([[-1.0, 0.5, 2.0, 0.0]], dtype=torch.float16).reshape(1, 1, 1, 4)
    assert to_pixels(image).tolist() == [[[[0, 128, 255]]]]
    assert to_image([Image.new("L", (2, 1), 51), Image.new("RGBA", (2, 1), (255, 0, 51, 7))]).tolist() == [
        pytest.approx(np.full((1, 2, 3), 0.2)),
        pytest.approx(np.array([[[1.0, 0.0, 0.2]] * 2])),
    ]


@settings(deadline=None)
@given(
    count=st.integers(1, 20), most=st.integers(1, 20), size=st.sampled_from([(5, 129), (128, 3), (64, 40), (33, 64)])
)
def test_tiles_hold_the_first_pictures_in_rows(count, most, size):
    shots = pictures(count, *size)
    sheet = np.asarray(tiles(shots, most))
    shown, times = min(count, most), 2 if max(size) == 64 else 1  # tiny pictures are enlarged by whole pixels
    height, width = (times * side for side in size)
    columns = math.ceil(math.sqrt(shown))
    assert sheet.shape == (math.ceil(shown / columns) * height, columns * width, 3)
    cells = [
        sheet[r : r + height, c : c + width]
        for r in range(0, len(sheet), height)
        for c in range(0, sheet.shape[1], width)
    ]
    for shot, cell in zip(shots[:shown], cells, strict=False):
        assert np.array_equal(cell[::times, ::times], shot) and np.array_equal(
            cell[times - 1 :: times, times - 1 :: times], shot
        )
    assert all((cell == ImageColor.getrgb(DARK.paper)).all() for cell in cells[shown:])


# --- marks ---

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def turned(value):
    """The same value with dictionaries in reverse order and tuples for lists."""
    if isinstance(value, dict):
        return {k: turned(v) for k, v in reversed(value.items())}
    return tuple(turned(v) for v in value) if isinstance(value, list) else value


@given(parts=st.lists(values, max_size=3))
def test_equal_inputs_make_equal_marks(parts):
    assert mark(*parts) == mark(*(turned(p) for p in parts))
    assert len(mark(*parts)) == 12 and int(mark(*parts), 16) >= 0


@given(one=values, other=values)
def test_different_inputs_make_different_marks(one, other):
    assert (mark(one) == mark(other)) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


def test_a_mark_is_the_same_on_every_machine_and_day():
    assert (
        mark("a", {"b": 1, "größe": [2.5, None]}, ("x",))
        == mark("a", {"größe": (2.5, None), "b": 1}, ["x"])
        == "5194398c0cce"
    )
    assert mark("a", "b") != mark("ab") != mark(["a", "b"])
    assert mark() != mark(None) != mark("null")


def test_a_mark_accepts_values_that_json_lacks():
    assert mark(Path("a/b")) == mark(str(Path("a/b")))
