"""The blueprints and the subgraphs in examples: consistent in themselves, and shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workflows import FOLDER as EXAMPLES
from workflows import to_api

from subgraphs import INPUT, OUTPUT, Part, Socket, to_subgraph, unpacked, with_parts

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "subgraphs").glob("*.json")) + sorted(EXAMPLES.glob("*.json"))
DEFINED = [
    pytest.param(definition, id=f"{path.stem}: {definition['name']}")
    for path in FILES
    for definition in json.loads(path.read_text(encoding="utf-8")).get("definitions", {}).get("subgraphs", [])
]
INFO = {
    "Give": {
        "input": {"required": {"number": ["INT", {"default": 3}]}}, "input_order": {"required": ["number"]},
        "output": ["IMAGE"], "output_name": ["image"],
    },
    "Take": {
        "input": {"required": {"image": ["IMAGE"], "text": ["STRING", {"default": "a"}]}},
        "input_order": {"required": ["image", "text"]}, "output": ["STRING", "IMAGE"], "output_name": ["said", "image"],
    },
}  # fmt: skip


def test_the_blueprints_have_the_names_that_the_node_library_shows():
    assert [p.name for p in FILES if p.parent.name == "subgraphs"] == [
        "Improve my LoRA.json",
        "Is my LoRA any good.json",
    ]
    assert len(DEFINED) == 5, "two blueprints, and three examples"


def test_the_archive_of_the_registry_has_them():
    ignored = (ROOT / ".comfyignore").read_text(encoding="utf-8").split()
    assert not {"subgraphs/", "subgraphs", "example_workflows/", "*.json"} & set(ignored)


def _slot(nodes: dict, definition: dict, way: str, node: int, slot: int) -> dict:
    if node in (INPUT, OUTPUT):
        return definition["inputs" if node == INPUT else "outputs"][slot]
    return nodes[node]["outputs" if way == "from" else "inputs"][slot]


@pytest.mark.parametrize("definition", DEFINED)
def test_both_ends_of_every_link_know_it(definition: dict):
    nodes, known = {n["id"]: n for n in definition["nodes"]}, set()
    for link in definition["links"]:
        source = _slot(nodes, definition, "from", link["origin_id"], link["origin_slot"])
        target = _slot(nodes, definition, "to", link["target_id"], link["target_slot"])
        assert link["id"] in source.get("linkIds", source.get("links", []))
        assert link["id"] in target.get("linkIds", [target.get("link")])
        assert link["type"] in (source["type"], target["type"])
        known.add(link["id"])
    ends = {i for slot in definition["inputs"] + definition["outputs"] for i in slot["linkIds"]}
    used = {slot["link"] for node in nodes.values() for slot in node["inputs"]} - {None}
    assert ends | used == known and len(known) == len(definition["links"])
    assert definition["state"]["lastLinkId"] == max(known) and definition["state"]["lastNodeId"] == max(nodes)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_widget_of_a_subgraphs_node_is_one_of_an_inner_node(path: Path):
    whole = json.loads(path.read_text(encoding="utf-8"))
    for definition in whole.get("definitions", {}).get("subgraphs", []):
        node = next(n for n in whole["nodes"] if n["type"] == definition["id"])
        assert [s["name"] for s in node["inputs"]] == [s["name"] for s in definition["inputs"]]
        inner = {n["id"]: n for n in definition["nodes"]}
        widgets = [s for s in node["inputs"] if "widget" in s]
        assert len(widgets) == len(node["widgets_values"]) and widgets
        for slot, value in zip(widgets, node["widgets_values"], strict=True):
            outer = next(s for s in definition["inputs"] if s["name"] == slot["name"])
            ends = [k for k in definition["links"] if k["id"] in outer["linkIds"]]
            for end in ends:
                entry = inner[end["target_id"]]["inputs"][end["target_slot"]]
                values = inner[end["target_id"]]["widgets_values"]
                place = [s["name"] for s in inner[end["target_id"]]["inputs"] if "widget" in s].index(entry["name"])
                assert values[place] == value, f"{slot['name']}: the inner node shows another value"


PART = Part(
    "Both",
    "A picture is made and read.",
    {
        "give": {"class_type": "Give", "inputs": {"number": 7}, "pos": [0, 0]},
        "take": {"class_type": "Take", "inputs": {"image": ["give", 0]}, "pos": [400, 0]},
    },
    (Socket("number", (("give", "number"),), "how many"), Socket("text", (("take", "text"),))),
    (Socket("said", (("take", 0),)), Socket("picture", (("give", 0),))),
)


def test_a_part_unpacks_to_the_graph_that_it_was_made_of():
    graph = {
        "first": {"class_type": "Give", "inputs": {}, "pos": [0, 0]},
        "both": {"class_type": PART.id, "inputs": {"number": 9}, "pos": [400, 0]},
        "last": {"class_type": "Take", "inputs": {"image": ["both", 1], "text": ["both", 0]}, "pos": [800, 0]},
    }
    flat = to_api(unpacked(with_parts(graph, [PART], INFO)), INFO)
    assert flat == {
        "1": {"class_type": "Give", "inputs": {"number": 3}},
        "3": {"class_type": "Take", "inputs": {"image": ["2101", 0], "text": ["2102", 0]}},
        "2101": {"class_type": "Give", "inputs": {"number": 9}},
        "2102": {"class_type": "Take", "inputs": {"image": ["2101", 0], "text": "a"}},
    }


def test_a_subgraph_says_what_it_takes_and_gives():
    made = to_subgraph(PART, INFO)
    assert [(s["name"], s["type"], s.get("label")) for s in made["inputs"]] == [
        ("number", "INT", "how many"), ("text", "STRING", None),
    ]  # fmt: skip
    assert [(s["name"], s["type"]) for s in made["outputs"]] == [("said", "STRING"), ("picture", "IMAGE")]
    ends = [(k["origin_id"], k["origin_slot"], k["target_id"], k["target_slot"]) for k in made["links"]]
    assert ends == [(101, 0, 102, 0), (-10, 0, 101, 0), (-10, 1, 102, 1), (102, 0, -20, 0), (101, 0, -20, 1)]
