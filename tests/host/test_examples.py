"""The example workflows: equal to their source, made of known nodes only, and run on a real ComfyUI."""

from __future__ import annotations

import json

import pytest
from hosting import Server, comfyui_path
from one_click import NAMES as ONE_CLICK
from stand_ins import write_stand_ins
from toy_graphs import FEW_PROMPTS
from workflows import FOLDER, OURS, to_api

from example_workflows import graphs, workflows
from subgraphs import unpacked

pytestmark = pytest.mark.usefixtures("comfyui")
NAMES = sorted([*graphs(), *ONE_CLICK])
TOYBOX = [name for name in NAMES if name.startswith("toybox") or name in ONE_CLICK]
"""Those that need no file of the user."""
# Smaller sizes only: every node runs, connected as shipped.
SMALL = {
    "candidates_per_prompt": 3,
    "train_steps": 4,
    "pairs_per_step": 4,
    "seeds_per_prompt": 2,
    "steps": 6,
    "rounds": 2,
    "max_uses": 10,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("examples")) as running:
        yield running


@pytest.fixture(scope="module")
def info(server: Server) -> dict:
    return server.get("/object_info")


@pytest.fixture(scope="module")
def made(info: dict) -> dict:
    return workflows(info)


def shipped(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_every_example_has_a_thumbnail_and_nothing_else_is_there():
    from PIL import Image

    assert {p.name for p in FOLDER.iterdir()} == {f"{n}.{kind}" for n in NAMES for kind in ("json", "jpg")}
    for name in NAMES:
        with Image.open(FOLDER / f"{name}.jpg") as picture:
            assert picture.format == "JPEG" and min(picture.size) >= 300


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_what_its_source_says(name: str, made: dict):
    assert shipped(name) == made[name]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_uses_core_nodes_and_ours_and_leaves_no_required_input_open(name: str, info: dict):
    for node in to_api(unpacked(shipped(name)), info).values():
        definition = info[node["class_type"]]
        assert definition["python_module"].split(".")[0] in ("nodes", "comfy_extras") or node["class_type"].startswith(
            OURS
        )
        assert set(definition["input"]["required"]) <= set(node["inputs"]), node["class_type"]


COMPARES = ("toybox_compare_epochs", "is_my_lora_any_good")
"""Examples that rank LoRAs."""


def smaller(name: str, info: dict) -> dict:
    """The graph of a toybox example, with smaller sizes."""
    graph = to_api(unpacked(shipped(name)), info)
    for node in graph.values():
        for key in node["inputs"].keys() & SMALL:
            if not isinstance(node["inputs"][key], list):
                small = SMALL[key]
                node["inputs"][key] = (
                    min(small, node["inputs"][key]) if key == "steps" else small
                )  # drafts already have fewer
        if node["class_type"] == "DBDPO_LoadToybox":
            node["inputs"]["steps"] = 20
        if node["class_type"] == "DBDPO_PromptSet":
            node["inputs"] |= FEW_PROMPTS
        if node["class_type"] == "DBDPO_ToyboxEpochs":
            node["inputs"] |= {"steps": 8, "epochs": 2}
    return graph


@pytest.mark.parametrize("name", COMPARES)
def test_an_example_that_compares_loras_runs(name: str, server: Server, info: dict):
    graph = smaller(name, info)
    shown = server.run(graph)["outputs"]
    kinds = {graph[n]["class_type"]: shown[n] for n in shown if n in graph}
    lines = kinds["DBDPO_CompareLoras"]["text"][0].split("\n")
    assert lines[1].startswith("2 pictures of each of 4 held-out prompts") and len(lines) >= 5
    assert all(shown[n]["images"] for n in graph if graph[n]["class_type"] == "PreviewImage")
    assert len(kinds["DBDPO_CompareLoras"]["images"]) == 2


@pytest.mark.parametrize("name", [n for n in TOYBOX if n not in (*COMPARES, "a_first_run_as_an_app")])
def test_a_toybox_example_runs(name: str, server: Server, info: dict):
    graph = smaller(name, info)
    shown = server.run(graph)["outputs"]
    kinds = {graph[n]["class_type"]: shown[n] for n in shown if n in graph}
    assert kinds["DBDPO_SaveLora"]["text"][0].startswith("saved as dreambooth_dpo/toybox_")
    assert "8 held-out pictures of 4 prompts" in kinds["DBDPO_Evaluate"]["text"][0]
    assert all(shown[n]["images"] for n in graph if graph[n]["class_type"] in ("DBDPO_Evaluate", "PreviewImage"))
    assert all(shown[n]["dbdpo_curve"] for n in graph if graph[n]["class_type"] == "DBDPO_TrainStep")


@pytest.mark.parametrize("name", [n for n in NAMES if n not in TOYBOX])
def test_the_host_accepts_an_example_for_ones_own_models(name: str, server: Server, info: dict):
    """The host's own validation of every widget and link. Files without tensors stand for the models."""
    graph = to_api(shipped(name), info)
    write_stand_ins(server.folder, graph)
    for node in graph.values():
        chosen, options = node["inputs"].get("type"), info[node["class_type"]]["input"]["required"].get("type", [[]])
        if chosen and chosen not in (options[0] if isinstance(options[0], list) else options[1]["options"]):
            pytest.skip(f"this ComfyUI's {node['class_type']} has no type {chosen}: it is older than the model")
    status, answer = server.post("/prompt", {"prompt": graph})
    server.post("/interrupt", {})
    assert status == 200 and not answer.get("node_errors"), answer
