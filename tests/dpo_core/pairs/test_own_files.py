"""A person's own pairs as files: what is read, and what is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from loops import FakeModel
from PIL import Image

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.pairs.own import Own, own_of, own_prompts, store_own_pairs, use_own
from dreambooth_dpo.dpo_core.pairs.own_files import doubts, find_own_pairs
from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.dpo_core.run.folder import RunFolder


def paint(file: Path, colour: int, size: tuple[int, int] = (8, 8)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 0, 0)).save(file)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two pairs: a with its own prompt, b without; b's loser is larger and a JPEG."""
    folder = tmp_path / "möine"
    paint(folder / "winner" / "a.png", 255)
    paint(folder / "loser" / "a.webp", 0)
    paint(folder / "winner" / "b.png", 200)
    paint(folder / "loser" / "b.jpg", 100, (16, 8))
    (folder / "winner" / "a.txt").write_text("a {identifier} {class_noun}\n on sand", encoding="utf-8")
    return folder


def test_folders_are_paired_by_name_with_their_prompts(source: Path):
    found = find_own_pairs(source, "  a sks  robot ")
    assert [(p.prompt, p.winner.name, p.loser.name) for p in found.pairs] == [
        ("a {identifier} {class_noun} on sand", "a.png", "a.webp"),
        ("a sks robot", "b.png", "b.jpg"),
    ]
    assert found.sizes[1] == ((8, 8), (16, 8))
    assert found.sentence(8, 8) == "2 own pairs; 1 of 4 pictures cropped and resized to 8x8: 16x8."
    assert found.sentence(16, 8).endswith("3 of 4 pictures cropped and resized to 16x8: 8x8; 3 pictures enlarged.")
    assert doubts(found.pairs, "sks robot")[0].startswith("1 of 2 own pairs have a prompt that does not name")


def test_a_csv_is_read_with_paths_from_its_folder(source: Path):
    file = source / "pairs.csv"
    file.write_text('\ufeffPrompt,winner,loser\n"a sks robot, red",winner/a.png,loser/a.webp\n', encoding="utf-8")
    (pair,) = find_own_pairs(file).pairs
    assert pair.prompt == "a sks robot, red" and pair.loser == (source / "loser" / "a.webp").resolve()


def test_the_mark_changes_with_prompt_and_content(source: Path):
    one = find_own_pairs(source, "x").mark
    assert find_own_pairs(source, "x").mark == one != find_own_pairs(source, "y").mark
    paint(source / "winner" / "b.png", 201)
    assert find_own_pairs(source, "x").mark != one


def broken(source: Path, case: str) -> Path:
    if case == "no partner":
        (source / "loser" / "a.webp").unlink()
    elif case == "format":
        Image.new("RGB", (8, 8)).save(source / "winner" / "c.bmp")
    elif case == "disguised":
        Image.new("RGB", (8, 8)).save(source / "winner" / "a.png", "BMP")
    elif case == "two of a name":
        paint(source / "winner" / "a.jpg", 3)
    elif case == "same":
        (source / "loser" / "b.jpg").unlink()
        (source / "loser" / "b.png").write_bytes((source / "winner" / "b.png").read_bytes())
    elif case == "two prompts":
        (source / "a.txt").write_text("another", encoding="utf-8")
    elif case == "link":
        (source / "loser" / "b.jpg").unlink()
        paint(source.parent / "outside.png", 7)
        os.symlink(source.parent / "outside.png", source / "loser" / "b.png")
    elif case.startswith("csv "):
        rows = {
            "csv columns": "prompt,winner\na,b",
            "csv leads out": "prompt,winner,loser\na,winner/a.png,../outside.png",
            "csv absolute": f"prompt,winner,loser\na,winner/a.png,{(source.parent / 'outside.png').as_posix()}",
            "csv missing": "prompt,winner,loser\na,winner/a.png,loser/z.png",
            "csv empty": "prompt,winner,loser\n,winner/a.png,loser/a.webp",
            "csv format": "prompt,winner,loser\na,winner/a.png,records.sqlite",
        }
        (source / "p.csv").write_text(rows[case], encoding="utf-8")
        return source / "p.csv"
    return source


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no partner", r"winner/a\.png has no picture of that name"),
        ("format", r"c\.bmp is no PNG, JPEG or WebP picture"),
        ("disguised", r"a\.png cannot be read as PNG, JPEG or WebP"),
        ("two of a name", "holds a.jpg and a.png: two pictures of one name"),
        ("same", "are the same file: neither is better"),
        ("two prompts", "give two prompts for one pair"),
        pytest.param(
            "link", "leads out of", marks=pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
        ),
        ("csv columns", "has no column 'loser'"),
        ("csv leads out", "leads out of"),
        ("csv absolute", "leads out of"),
        ("csv missing", "does not exist"),
        ("csv empty", "line 2: prompt is empty"),
        ("csv format", "records.sqlite is no PNG, JPEG or WebP"),
    ],
)
def test_wrong_files_are_refused_by_name(source: Path, case: str, said: str):
    with pytest.raises(UserError, match=said):
        find_own_pairs(broken(source, case), "a sks robot")


def test_missing_folders_and_prompts_are_refused(source: Path, tmp_path: Path):
    with pytest.raises(UserError, match="the pair b has no prompt"):
        find_own_pairs(source)
    with pytest.raises(UserError, match="neither a folder nor a .csv file"):
        find_own_pairs(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no folder winner"):
        find_own_pairs(source / "winner")


def test_pairs_are_encoded_once_and_stored_as_candidates(source: Path, tmp_path: Path):
    concept = Concept("sks", "robot", np.zeros((1, 8, 8, 3), np.uint8))
    own, model = find_own_pairs(source, "a sks robot"), FakeModel()
    with RunFolder(tmp_path / "run") as run:
        name = store_own_pairs(run, own, model, concept, (8, 8))
        members = run.candidates(name)
        assert [c.prompt for c in members] == ["a sks robot on sand"] * 2 + ["a sks robot"] * 2
        assert run.pairs(name) == [Pair(0, 1, 0, 0), Pair(2, 3, 0, 0)]
        assert torch_equal(run.latents(name), model.encode_images(run.images(name)))
        assert run.images(name, [0, 1])[:, 0, 0, 0].tolist() == [255, 0]
        model.encode_images = None  # not called again
        assert store_own_pairs(run, own, model, concept, (8, 8)) == name
        use_own(run, "pairs", Own(name, 2.0))
        assert own_of(run, "pairs") == Own(name, 2.0) and own_of(run, "others") is None
        assert own_prompts(run, "pairs") == ["a sks robot on sand", "a sks robot"]


def torch_equal(left, right) -> bool:
    return left.shape == right.shape and bool((left == right).all())


def test_pictures_that_become_the_same_are_refused(tmp_path: Path):
    paint(tmp_path / "winner" / "a.png", 9, (8, 8))
    paint(tmp_path / "loser" / "a.png", 9, (16, 16))
    concept = Concept("sks", "robot", np.zeros((1, 8, 8, 3), np.uint8))
    with RunFolder(tmp_path / "run") as run, pytest.raises(UserError, match="are the same picture at 8x8"):
        store_own_pairs(run, find_own_pairs(tmp_path, "x"), FakeModel(), concept, (8, 8))
