"""The blueprints on a real ComfyUI: equal to their source, offered, of the host's own form, and accepted when run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from blueprints import blueprints, compare, improve
from hosting import Server, comfyui_path
from stand_ins import write_stand_ins
from workflows import OURS, to_api

from example_workflows import node
from subgraphs import FOLDER, unpacked, with_parts

pytestmark = pytest.mark.usefixtures("comfyui")
NAMES = sorted(p.name for p in FOLDER.glob("*.json"))
HOSTS_OWN = comfyui_path() / "blueprints"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    if not HOSTS_OWN.is_dir():
        pytest.skip("this ComfyUI has no blueprints")
    folder = tmp_path_factory.mktemp("blueprints")
    write_stand_ins(folder, {})  # the host lists folders of photos when it starts
    with Server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def info(server: Server) -> dict:
    return server.get("/object_info")


def shipped(name: str) -> dict:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_the_blueprints_are_what_their_source_says(info: dict):
    made = blueprints(info)
    assert sorted(made) == NAMES
    for name in NAMES:
        assert shipped(name) == made[name]


def test_the_host_offers_them(server: Server):
    listed = {
        entry["name"]: key for key, entry in server.get("/global_subgraphs").items() if "dreambooth" in str(entry)
    }
    assert sorted(f"{name}.json" for name in listed) == NAMES
    for name, key in listed.items():
        assert json.loads(server.get(f"/global_subgraphs/{key}")["data"]) == shipped(f"{name}.json")


def _always(parts: list[dict]) -> set[str]:
    return set.intersection(*(set(part) for part in parts))


def test_they_have_what_every_blueprint_of_the_host_has():
    hosts = [json.loads(Path(p).read_text(encoding="utf-8")) for p in HOSTS_OWN.glob("*.json")]
    inside = [h["definitions"]["subgraphs"][0] for h in hosts]
    slots = [slot for i in inside for slot in i["inputs"]]
    assert len(hosts) > 20
    for name in NAMES:
        made = shipped(name)
        definition = made["definitions"]["subgraphs"][0]
        assert _always(hosts) <= set(made) and _always(inside) <= set(definition)
        assert all(_always(slots) <= set(slot) for slot in definition["inputs"] + definition["outputs"])
        assert len(made["nodes"]) == 1 and made["nodes"][0]["type"] == definition["id"]


@pytest.mark.parametrize("make", [improve, compare])
def test_the_host_accepts_a_blueprint_between_its_own_loaders(make, server: Server, info: dict):
    part = make()
    for inner in part.nodes.values():
        assert inner["class_type"].startswith(OURS) or not info[inner["class_type"]]["python_module"].count("custom")
    graph = {
        "checkpoint": node("CheckpointLoaderSimple", 0, 0, (340, 165), ckpt_name="model.safetensors"),
        "part": node(
            part.id, 400, 0, (340, 400), model=["checkpoint", 0], clip=["checkpoint", 1], vae=["checkpoint", 2]
        ),
        "look": node("PreviewAny", 800, 0, (340, 400), source=["part", [s.name for s in part.outputs].index("report")]),
    }
    api = to_api(unpacked(with_parts(graph, [part], info)), info)
    write_stand_ins(server.folder, api)
    if make is compare:
        ranked = next(n for n in api.values() if n["class_type"] == "DBDPO_CompareLoras")
        ranked["inputs"]["loras"] = "my_subject.safetensors"
        write_stand_ins(server.folder, {"a lora": {"inputs": {"lora_name": "my_subject.safetensors"}}})
    status, answer = server.post("/prompt", {"prompt": api})
    server.post("/interrupt", {})
    assert status == 200 and not answer.get("node_errors"), answer
    assert {n["class_type"] for n in api.values()} >= {n["class_type"] for n in part.nodes.values()}
