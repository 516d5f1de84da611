"""Graphs that earlier versions saved open with their own values, whatever the order of widgets is today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SAVED = json.loads((Path(__file__).parents[1] / "data" / "saved_nodes.json").read_text(encoding="utf-8"))
"""Nodes of the examples as every version that changed their widgets saved them."""
BEFORE = {
    "rule": "angle_window", "combine": "mean", "schedule": "constant", "auto_beta": "off", "time_sampling": "table",
}  # fmt: skip
"""What a version without these widgets did, where a new node does another thing."""

pytestmark = pytest.mark.front_ends(
    "pinned", "newest", why="how a graph is configured is the front end's own; nodes of HTML share it with the canvas"
)


def graph_of(rows: list[dict]) -> dict:
    nodes = []
    for number, row in enumerate(rows, 1):
        inputs = [
            {"name": name, "type": kind, "link": None, **({"widget": {"name": name}} if widget else {})}
            for name, kind, widget in row["inputs"]
        ]
        nodes.append({
            "id": number, "type": row["type"], "pos": [400 * number, 0], "size": [380, 400], "flags": {},
            "order": number, "mode": 0,
            "inputs": inputs, "outputs": [], "properties": {}, "widgets_values": row["values"],
        })  # fmt: skip
    return {
        "last_node_id": len(nodes),
        "last_link_id": 0,
        "nodes": nodes,
        "links": [],
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def values_on_the_page(view) -> dict[str, dict]:
    return view.evaluate(
        "Object.fromEntries(app.graph._nodes.map(n => [n.id, Object.fromEntries(n.widgets.filter(w => w.serialize !== "
        "false).map(w => [w.name, w.value]))]))"
    )


def test_every_saved_node_has_its_own_values(view):
    new = graph_of([{**row, "values": []} for row in SAVED])
    for node in new["nodes"]:
        node["inputs"] = [i for i in node["inputs"] if "widget" not in i]
    view.evaluate("g => app.loadGraphData(g, true, true, null)", new)
    today = values_on_the_page(view)
    view.evaluate("g => app.loadGraphData(g, true, true, null)", graph_of(SAVED))
    view.wait_for_function("count => app.graph._nodes.length === count", arg=len(SAVED))
    for number, row in enumerate(SAVED, 1):
        names = [name for name, _, widget in row["inputs"] if widget]
        kept = dict(zip(names, row["values"], strict=True))
        found = values_on_the_page(view)[str(number)]
        assert {name: found[name] for name in kept} == kept, (row["type"], row["saved"])
        for name in set(found) - set(kept):
            assert found[name] == BEFORE.get(name, today[str(number)][name]), (row["type"], row["saved"], name)
    view.get_by_text("DreamBooth DPO: an older graph").first.wait_for()


def test_a_graph_of_today_is_left_alone_and_names_the_version(view):
    row = max((r for r in SAVED if r["type"] == "DBDPO_BuildPairs"), key=lambda r: len(r["inputs"]))
    view.evaluate("g => app.loadGraphData(g, true, true, null)", graph_of([row]))
    view.wait_for_function("() => app.graph._nodes.length === 1")
    view.evaluate("() => { app.graph._nodes[0].widgets.find(w => w.name === 'margin').value = 0.75 }")
    saved = view.evaluate("() => app.graph.serialize()")
    assert saved["nodes"][0]["properties"]["dreambooth_dpo"].count(".") == 2
    told: list[str] = []
    view.on("console", lambda message: told.append(message.text))
    view.evaluate("g => app.loadGraphData(g, true, true, null)", saved)
    assert values_on_the_page(view)["1"]["margin"] == 0.75
    assert not [text for text in told if "older version" in text]
