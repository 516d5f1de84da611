"""A second run with all results cached: the host sends what nodes show again, if it supports that."""

from __future__ import annotations

import uuid

import pytest
from event_loop import in_a_loop
from hosting import Server, comfyui_path, executed
from shown import nodes
from toy_graphs import toy_loop_graph

pytestmark = pytest.mark.usefixtures("comfyui")
# The nodes that one output node depends on: all others are not output nodes, or not in the graph.
ASKED = ("sample", "score", "pairs", "train")


def heard(server: Server, graph: dict) -> tuple[dict, dict]:
    """Run a graph as a page does: (what the server sent of each node shown, the history entry)."""
    import aiohttp

    client = uuid.uuid4().hex

    async def listen() -> dict:
        told = {}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{server.url}/ws?clientId={client}") as socket,
        ):
            await socket.receive()  # it is known to the server now
            async with session.post(f"{server.url}/prompt", json={"prompt": graph, "client_id": client}) as answer:
                told["prompt"] = (await answer.json())["prompt_id"]
            async for message in socket:
                event = message.json() if message.type == aiohttp.WSMsgType.TEXT else {"type": "picture"}
                if event["type"] == "executed":
                    told[event["data"]["node"]] = event["data"]["output"]
                if event["type"] in ("execution_success", "execution_error"):
                    return told
        raise ConnectionError("the server ended the connection")

    told = in_a_loop(listen(), 300)
    return told, server.wait(told.pop("prompt"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("again")) as server:
        graph = toy_loop_graph(train={"train_steps": 2}, toy={"steps": 1}, pairs={"max_uses": 10})
        del graph["look"], graph["evaluate"]
        yield heard(server, graph), heard(server, graph)


def test_cached_nodes_show_their_output_again(runs, pack):
    from comfy_api.latest import io

    (first, history), (second, history_2) = runs
    assert history["status"]["status_str"] == history_2["status"]["status_str"] == "success"
    assert set(ASKED) <= executed(history) and not executed(history_2) & set(ASKED), "the second run finds all at hand"
    assert (
        all(first[name]["images"] for name in ASKED if name != "train")
        and first["train"]["dbdpo_curve"]
        and "steps on" in first["train"]["text"][0]
    )
    again = {name: output for name, output in second.items() if name in ASKED and output}
    if "has_intermediate_output" in io.Schema.__dataclass_fields__:
        assert again == {name: first[name] for name in ASKED}
        assert history_2["outputs"]["train"] == history["outputs"]["train"]
    else:
        assert again == {}, "this host can do it after all: nodes/sockets.py should ask it to"
    assert second["save"] == first["save"], "an output node's is sent again by every host"


def test_every_node_with_ui_output_declares_it(runs, pack, request):
    """The host's schemas agree with what tests/test_shown.py reads from the source."""
    from comfy_api.latest import io

    if "has_intermediate_output" not in io.Schema.__dataclass_fields__:
        pytest.skip("this ComfyUI's schema has no has_intermediate_output")
    classes = request.getfixturevalue("nodes")
    asked = {name for name, node in classes.items() if node.GET_SCHEMA().has_intermediate_output}
    assert asked == {node.name for node in nodes() if node.shows}
