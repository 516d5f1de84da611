"""Two Inspect Pairs nodes on the same pairs: each is offered its own decisions, and none are lost."""

from __future__ import annotations

import json

import pytest
from hosting import Server, comfyui_path
from toy_graphs import node, toy_loop_graph

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("two_inspectors")) as running:
        yield running


def seen(server: Server, **edits: dict | None) -> dict[str, dict]:
    """What the inspectors of these names show, with these decisions, all behind the same pairs."""
    whole = toy_loop_graph(sample={"run_name": "inspect"}, pairs={"max_uses": 10})
    part = {name: whole[name] for name in ("toy", "concept", "prompts", "sample", "scorer", "score", "pairs")}
    for name, given in edits.items():
        part[name] = node("InspectPairs", pairs=["pairs", 0], edits=json.dumps(given) if given else "")
    outputs = server.run(part)["outputs"]
    return {name: {**outputs[name]["dbdpo_inspect"][0], "said": outputs[name]["text"][0]} for name in edits}


def test_each_inspector_is_offered_its_own_decisions(server: Server):
    payload = seen(server, left=None)["left"]
    first, second = (pair["id"] for pair in payload["pairs"][:2])
    mine, others = (
        {"version": 1, "fingerprint": payload["fingerprint"], "pairs": pairs, "candidates": {}}
        for pairs in ({first: "swap"}, {first: "keep", second: "reject"})
    )
    assert payload["kept"] is None
    seen(server, left=mine, right=others)
    # The edits are empty, as in a new graph; the third inspector has no decisions yet.
    again = seen(server, left=None, right=None, third=None)
    assert [(again[n]["kept"], again[n]["kept_here"]) for n in ("left", "right")] == [(mine, True), (others, True)]
    assert again["third"]["kept"] in (mine, others) and not again["third"]["kept_here"]
    assert "from another node or workflow; the node can restore them." in again["third"]["said"]
    assert "Saved decisions on these candidates: 1; the node can restore them." in again["left"]["said"]
