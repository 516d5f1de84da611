"""Tests the layout of the examples: nodes do not overlap, are clear of group titles, and fit their content."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
from layouts import TITLE, apart, box, least_height, tallest
from workflows import FOLDER

NAMES = sorted(f.stem for f in FOLDER.glob("*.json"))
ROOM = 20
"""Minimum distance between two nodes: a badge with the pack's name is above the title."""


def shipped(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def too_near(workflow: dict) -> list[tuple[str, str, float]]:
    pairs = itertools.combinations(workflow["nodes"], 2)
    found = [(a.get("title", a["type"]), b.get("title", b["type"]), apart(box(a), box(b))) for a, b in pairs]
    return [entry for entry in found if entry[2] < ROOM]


def across_groups(workflow: dict) -> list[tuple[str, str]]:
    """Nodes that are partly in a group, or under its title."""
    found = []
    for group in workflow["groups"]:
        left, top, width, height = group["bounding"]
        for node in workflow["nodes"]:
            there = box(node)
            inside = (
                left <= there[0] and there[2] <= left + width and top + TITLE <= there[1] and there[3] <= top + height
            )
            if not inside and apart(there, (left, top, left + width, top + height)) < 0:
                found.append((node["type"], group["title"]))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_nodes_do_not_overlap(name: str):
    assert too_near(shipped(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_nodes_are_large_enough_for_their_content(name: str):
    small = {
        n.get("title", n["type"]): (n["size"][1], least_height(n))
        for n in shipped(name)["nodes"]
        if n["size"][1] < least_height(n)
    }
    assert small == {}


@pytest.mark.parametrize("name", NAMES)
def test_nodes_are_entirely_inside_or_outside_a_group(name: str):
    assert across_groups(shipped(name)) == []


def test_checks_detect_layout_errors():
    workflow = copy.deepcopy(shipped("toybox_quickstart"))
    first, second = workflow["nodes"][:2]
    first["size"] = [340, 10]  # the front ends give it what its widgets need
    second["pos"] = [first["pos"][0] + 10, first["pos"][1] + tallest(first) + TITLE - 1]
    assert (first["type"], second["type"], -1) in too_near(workflow)
    x, y = first["pos"]
    workflow["groups"] = [{"title": "a group", "bounding": [x - 10, y - TITLE - 10, 380, 2000]}]
    assert (first["type"], "a group") in across_groups(workflow), "it lies under the group's title"
