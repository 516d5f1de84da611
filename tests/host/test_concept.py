"""Concept on ComfyUI's own Load Image: cut-outs, opaque photos, and words that the host turns into text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hosting import Server, comfyui_path
from PIL import Image
from toy_graphs import node, words

pytestmark = pytest.mark.usefixtures("comfyui")
SIDE, BOX = 96, (30, 20, 70, 90)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("concept")) as running:
        photos(running.folder / "input")
        yield running


def photos(folder: Path) -> None:
    """A cut-out with a hidden magenta background, and the same photo without transparency."""
    folder.mkdir(exist_ok=True)
    cut = Image.new("RGBA", (SIDE, SIDE), (255, 0, 255, 0))
    cut.paste((20, 120, 20, 255), BOX)
    cut.save(folder / "cut_out.png")
    cut.convert("RGB").save(folder / "opaque.png")


def graph(file: str, masked: bool = True, **more: object) -> dict:
    """Load Image -> Concept -> Prompt Set, whose listing is shown."""
    masks = {"masks": ["photo", 1]} if masked else {}
    return {
        "photo": {"class_type": "LoadImage", "inputs": {"image": file}},
        "concept": node(
            "Concept", **{"identifier": "sks", "class_noun": "robot", "references": ["photo", 0], **masks, **more}
        ),
        "prompts": node(
            "PromptSet", concept=["concept", 0], preset="objects", text="", held_out_text="", held_out_share=0.4, seed=0
        ),
        "shown": words(["prompts", 1]),
    }


def test_a_cut_out_of_load_image_just_works_and_is_shown_masked(server: Server):
    done = server.run(graph("cut_out.png"))["outputs"]["concept"]
    said = done["text"][0]
    assert said.startswith("1 photo, masks cover 30 % of photo 1.")
    assert "Masks inverted: white was the background, as Load Image gives for cut-outs." in said
    assert "One reference photo: fidelity has no scale" in said
    (shown,) = done["images"]
    with Image.open(server.folder / shown["type"] / shown["subfolder"] / shown["filename"]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    left, top, right, bottom = BOX
    inside = np.zeros((SIDE, SIDE), bool)
    inside[top:bottom, left:right] = True
    assert (pixels[~inside] == 128).all() and (pixels[inside] == (20, 120, 20)).all()


def test_masks_that_are_inverted_by_hand_give_the_same_concept(server: Server):
    """As graphs did before: Load Image, Invert Mask, Concept."""
    by_hand = graph("cut_out.png", masks=["turned", 0])
    by_hand["turned"] = {"class_type": "InvertMask", "inputs": {"mask": ["photo", 1]}}
    said = server.run(by_hand)["outputs"]["concept"]["text"][0]
    assert said.startswith("1 photo, masks cover 30 % of photo 1.") and "inverted" not in said


def message(server: Server, wrong: dict) -> str:
    found = server.wait(server.queue(wrong))
    return dict(found["status"]["messages"])["execution_error"]["exception_message"]


def test_the_empty_mask_of_an_opaque_photo_is_explained(server: Server):
    assert "for a photo without transparency: disconnect masks" in message(server, graph("opaque.png"))
    said = server.run(graph("opaque.png", masked=False))["outputs"]["concept"]
    assert said["text"][0].startswith("1 photo, no masks") and "images" not in said


@pytest.mark.parametrize("value", [None, "", " "])
def test_a_word_that_is_null_or_empty_is_refused_by_widget(server: Server, value):
    """The host makes the text "None" of null, which gave "a None robot"."""
    for name in ("identifier", "class_noun"):
        _, answer = server.post("/prompt", {"prompt": graph("cut_out.png", **{name: value})})
        assert f"{name} is empty: write a word" in str(answer["node_errors"])
