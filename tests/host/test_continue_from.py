"""Train Step's input continue_from on a real ComfyUI: the same as a MODEL that carries the LoRA."""

from __future__ import annotations

import pytest
import torch
from hosting import Server, comfyui_path
from safetensors.torch import load_file
from toy_graphs import FEW_PROMPTS, node, toy_loop_graph

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("continued")) as running:
        yield running


def graph(**starts: dict) -> dict:
    """A few steps of training, and for each start a few more from there, on the same pairs; each LoRA is saved."""
    whole = toy_loop_graph(toy={"steps": 5}, sample={"run_name": "on"}, prompts=FEW_PROMPTS, train={"train_steps": 3})
    found = {n: whole[n] for n in ("toy", "concept", "prompts", "sample", "scorer", "score", "pairs", "train", "save")}
    found["save"]["inputs"]["filename_prefix"] = "first"
    for name, start in starts.items():
        found[name] = node("TrainStep", **{**whole["train"]["inputs"], **start})
        found[f"save_{name}"] = node("SaveLora", lora=[name, 1], filename_prefix=name)
    return found


def test_continuing_from_a_lora_is_continuing_on_its_model(server: Server):
    on_model, from_lora = {"model": ["train", 0]}, {"continue_from": ["train", 1]}
    server.run(graph(model=on_model, lora=from_lora))
    folder = server.folder / "models" / "loras"
    first, model, lora = (load_file(next(folder.glob(f"{name}_*.safetensors"))) for name in ("first", "model", "lora"))
    assert first.keys() == model.keys() == lora.keys()
    assert all(torch.equal(model[name], lora[name]) for name in model)
    assert any(not torch.equal(first[name], lora[name]) for name in first), "it was trained on"


def test_both_at_once_are_refused(server: Server):
    history = server.wait(server.queue(graph(both={"model": ["train", 0], "continue_from": ["train", 1]})))
    failed = dict(history["status"]["messages"])["execution_error"]
    assert failed["node_id"] == "both" and "the trained weights would count twice" in failed["exception_message"]
