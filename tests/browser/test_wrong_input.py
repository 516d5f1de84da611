"""Things done wrong, in a real browser: the user reads what is wrong, and sees where."""

from __future__ import annotations

import json
import re

import pytest
from browsing import finished, load, press_run, reads, red, set_widgets, unlink
from hosting import Server
from workflows import FOLDER

pytestmark = pytest.mark.front_ends(
    "pinned", "newest", why="the messages are the page's, and the same over a canvas and over HTML nodes"
)


def quickstart(view) -> None:
    load(view, json.loads((FOLDER / "toybox_quickstart.json").read_text(encoding="utf-8")))
    set_widgets(view, {"DBDPO_LoadToybox": {"steps": 1}})


def test_wrong_values_are_named_before_anything_is_drawn(server: Server, view):
    quickstart(view)
    set_widgets(
        view, {"DBDPO_BuildPairs": {"angle_low": 80, "angle_high": 30}, "DBDPO_SampleCandidates": {"run_name": "never"}}
    )
    status, answer = press_run(view)
    assert status == 400
    assert "angle_low 80 must be below angle_high 30" in json.dumps(answer)
    reads(view, "angle_low 80 must be below angle_high 30")
    assert red(view) == ["DBDPO_BuildPairs"]
    assert not (server.folder / "output" / "dreambooth_dpo" / "never").exists()


def test_an_open_slot_is_named(view):
    quickstart(view)
    unlink(view, "DBDPO_SampleCandidates", "model")
    status, answer = press_run(view)
    assert status == 400
    assert "Required input is missing" in json.dumps(answer)
    # The server's words on older front ends, their own on newer ones.
    reads(view, re.compile("Required input is missing: model|Sample Candidates - model"))
    assert red(view) == ["DBDPO_SampleCandidates"]


def test_a_prompt_without_the_subject_is_explained(server: Server, view):
    quickstart(view)
    for name in ("text", "held_out_text"):
        unlink(view, "DBDPO_PromptSet", name)
    set_widgets(view, {"DBDPO_PromptSet": {"preset": "own text", "text": "a robot in the snow", "held_out_text": ""}})
    status, answer = press_run(view)
    assert status == 200, answer
    finished(view, server, answer["prompt_id"], 120)
    reads(view, "does not name the concept")
    assert red(view) == ["DBDPO_PromptSet"]
