"""Add Own Pairs on a real ComfyUI: a person's pictures are encoded, trained on and kept by Inspect Pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hosting import Server, comfyui_path, executed, run_path
from subject_files import write_own_pairs
from toy_graphs import FEW_PROMPTS, node, toy_loop_graph

from dreambooth_dpo.dpo_core.pairs.own import own_of
from dreambooth_dpo.dpo_core.run.folder import RunFolder

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    folder = tmp_path_factory.mktemp("own")
    write_own_pairs(folder / "input" / "mine", "ab", (80, 64))
    (folder / "input" / "mine" / "a.txt").write_text("a {identifier} {class_noun} at sea", encoding="utf-8")
    with Server(folder) as running:
        yield running


def graph(edits: str = "", **own: object) -> dict:
    """A toybox loop of few prompts to the trained LoRA, with own pairs before Inspect Pairs."""
    whole = toy_loop_graph(sample={"run_name": "own"}, prompts=FEW_PROMPTS, train={"train_steps": 4})
    part = {n: whole[n] for n in ("toy", "concept", "prompts", "sample", "scorer", "score", "pairs", "train", "save")}
    given = {"source": "mine", "prompt": "a sks robot in a box", "weight": 2.0, **own}
    part["own"] = node("OwnPairs", pairs=["pairs", 0], model=["toy", 0], vae=["toy", 2], **given)
    part["inspect"] = node("InspectPairs", pairs=["own", 0], edits=edits)
    part["train"]["inputs"]["pairs"] = ["inspect", 0]
    return part


def test_own_pairs_are_encoded_trained_on_and_survive_decisions(server: Server):
    history = server.run(graph())
    said = history["outputs"]["own"]["text"][0]
    assert "2 own pairs; 4 of 4 pictures cropped and resized to 64x64: 80x64." in said
    assert "Each of yours is visited 2 times as often as an automatic one." in said
    assert "pairs and 2 own. Last 4 steps" in history["outputs"]["train"]["text"][0]
    shown = history["outputs"]["inspect"]["dbdpo_inspect"][0]
    first = shown["pairs"][0]["id"]
    edits = {"version": 1, "fingerprint": shown["fingerprint"], "pairs": {first: "reject"}, "candidates": {}}
    again = server.run(graph(json.dumps(edits)))
    assert executed(again) >= {"inspect", "train"} and "own" not in executed(again)
    assert "pairs and 2 own. Last 4 steps" in again["outputs"]["train"]["text"][0]
    with RunFolder(run_path(server, "own")) as run:
        name = next(n.removeprefix("own_") for n in run.facts("own_") if "_edited_" in n)
        own = own_of(run, name)
        pixels, prompts = run.images(own.set_name), [c.prompt for c in run.candidates(own.set_name)]
    assert own.weight == 2.0 and prompts[0] == "a sks robot at sea" and prompts[2] == "a sks robot in a box"
    assert np.unique(pixels[0].reshape(-1, 3), axis=0).tolist() == [[200, 60, 60]]


def test_another_weight_trains_again_and_changed_files_are_read_again(server: Server):
    server.run(graph(weight=1.0))
    history = server.run(graph(weight=3.0))
    assert executed(history) >= {"own", "train"} and "sample" not in executed(history)
    Path(server.folder / "input" / "mine" / "loser" / "b.png").unlink()
    Path(server.folder / "input" / "mine" / "winner" / "b.png").unlink()
    assert "1 own pair;" in server.run(graph(weight=3.0))["outputs"]["own"]["text"][0]


@pytest.mark.parametrize("source", ["", "..", "../output", "mine/../..", "/etc"])
def test_a_source_outside_the_input_folder_is_refused_at_the_door(server: Server, source: str):
    with pytest.raises(ValueError, match="is not inside ComfyUI's input folder"):
        server.queue(graph(source=source))


def test_what_cannot_be_read_is_said(server: Server):
    history = server.wait(server.queue(graph(source="nobody")))
    failed = dict(history["status"]["messages"])["execution_error"]
    assert failed["node_id"] == "own" and "are neither a folder nor a .csv file" in failed["exception_message"]
