"""Strength Sweep on a real ComfyUI: pictures equal to the stock LoRA loader, and the node in a graph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hosting import Server, comfyui_path, executed
from native_models import ADAPTER, DRAWING, PROMPTS, adapter_state, furthest, left_behind, random_model
from toy_graphs import lora_by_socket, toy_loop_graph

from dreambooth_dpo.dpo_core.backends.comfyui import (
    ComfyTextToImage,
    LiveAdapter,
    adapter_of_lora,
    lora_prefixes,
    with_live_adapter,
)
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.evaluation.strength import Sweep
from dreambooth_dpo.dpo_core.json_values import from_json
from dreambooth_dpo.dpo_core.loop.strength_sweep import scaled_state
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import lora_tensors
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("comfyui")


# --- the LoRA as an adapter of any strength ---


@pytest.fixture(scope="module")
def toybox(comfyui: Path):
    with torch.inference_mode():
        return native_toybox()


def lora_of(model, settings: AdapterSettings = ADAPTER) -> tuple[Adapter, dict[str, torch.Tensor]]:
    """A random adapter of the MODEL, and the tensors of its LoRA."""
    with torch.inference_mode(False):
        adapter = Adapter(model.model.diffusion_model, settings)
        adapter.load(adapter_state(adapter))
    return adapter, lora_tensors(adapter, lora_prefixes(model.model, adapter.layers))


@pytest.mark.usefixtures("as_nodes_run")
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.5])
def test_pictures_equal_those_of_the_stock_loader(toybox, strength):
    """Measured over 4 steps: 2e-5 at most, of a change of more than 0.1."""
    import comfy.sd

    model, clip, vae = toybox
    _, tensors = lora_of(model)
    live = adapter_of_lora(model, tensors, "this LoRA")
    ours = with_live_adapter(model, LiveAdapter(scaled_state(live.state, strength), live.settings))
    stock = comfy.sd.load_lora_for_models(model, None, dict(tensors), strength, 0)[0]
    drawn = [ComfyTextToImage(m, clip, vae, 64, 64).sample(PROMPTS[:2], [1, 2], DRAWING) for m in (ours, stock, model)]
    assert furthest(drawn[0], drawn[1]) < 1e-4
    assert (furthest(drawn[0], drawn[2]) > 0.1) == (strength > 0)
    assert not left_behind(model)


@pytest.mark.usefixtures("as_nodes_run")
@pytest.mark.parametrize("targets", ["attention", "attention+ff", "all"])
@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_a_lora_converts_back_to_its_adapter(kind, targets):
    """Equal fingerprints: at strength 1 the pictures that Evaluate drew of the trained MODEL are reused."""
    settings = AdapterSettings(rank=3, alpha=0.7, targets=targets)
    model = random_model(kind)
    adapter, tensors = lora_of(model, settings)

    class Described(dict):
        rank, alpha = 3, 0.7

    found = adapter_of_lora(model, Described(tensors), "this LoRA")
    assert found.settings == settings and found.fingerprint == LiveAdapter(adapter.state(), settings).fingerprint
    plain = adapter_of_lora(model, tensors, "this LoRA")
    assert plain.settings.alpha == pytest.approx(0.7) and plain.settings.rank == 3
    assert all(torch.equal(plain.state[k], found.state[k]) for k in found.state)


@pytest.mark.usefixtures("as_nodes_run")
def test_a_lora_that_does_not_fit_is_refused(toybox):
    _, other = lora_of(random_model("sd"))
    with pytest.raises(
        UserError,
        match=r"this LoRA does not fit this MODEL: its \d+ layers .*Connect the lora output of DPO LoRA Train Step",
    ):
        adapter_of_lora(toybox[0], other, "this LoRA")
    _, own = lora_of(toybox[0])
    for wrong in ({}, dict(list(own.items())[:3])):
        with pytest.raises(UserError, match="does not fit this MODEL"):
            adapter_of_lora(toybox[0], wrong, "this LoRA")
    uneven = {k: v[:, :2] if k.endswith("lora_up.weight") and i > 9 else v for i, (k, v) in enumerate(own.items())}
    with pytest.raises(UserError, match="another rank"):
        adapter_of_lora(toybox[0], uneven, "this LoRA")


# --- the node ---


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("stärke")) as running:
        yield running


def sweep_graph(**changes: object) -> dict:
    graph = toy_loop_graph(train={"learning_rate": 1e-3})
    inputs = {k: v for k, v in graph["evaluate"]["inputs"].items() if k not in ("before", "after")}
    graph["sweep"] = {
        "class_type": "DBDPO_Strength",
        "inputs": {**inputs, "model": ["toy", 0], "lora": ["train", 1], "strengths": "1, 0.5", **changes},
    }
    graph["loader"] = lora_by_socket(["toy", 0], ["train", 1], ["sweep", 2])
    graph["text"] = {
        "class_type": "CLIPTextEncode",
        "inputs": {"clip": ["toy", 1], "text": "a photo of a sks robot on grass"},
    }
    graph["empty"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}}
    graph["picture"] = {
        "class_type": "KSampler",
        "inputs": {
            "model": ["loader", 0], "seed": 3, "steps": 2, "cfg": 1.0, "sampler_name": "dpmpp_2m",
            "scheduler": "normal",
            "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["empty", 0], "denoise": 1.0,
        },
    }  # fmt: skip
    graph["decoded"] = {"class_type": "VAEDecode", "inputs": {"samples": ["picture", 0], "vae": ["toy", 2]}}
    graph["shown"] = {"class_type": "PreviewImage", "inputs": {"images": ["decoded", 0]}}
    del graph["look"]
    return graph


@pytest.fixture(scope="module")
def done(server: Server) -> dict:
    return server.run(sweep_graph())


def facts(server: Server) -> list[dict]:
    from dreambooth_dpo.dpo_core.run.folder import RunFolder

    with RunFolder(server.folder / "output" / "dreambooth_dpo" / "quick") as run:
        return [v for k, v in run.facts("strength_").items() if k != "strength_adapters"]


def test_the_node_shows_its_results_and_its_strength_sets_the_stock_loader(server: Server, done: dict):
    assert {"sweep", "loader", "shown"} <= executed(done)
    shown = done["outputs"]["sweep"]
    assert len(shown["images"]) == 2
    (kept,) = facts(server)
    lines = shown["text"][0].split("\n")
    assert lines[0] == kept["words"] and lines[1].startswith("2 pictures of each held-out prompt at every strength")
    assert [line.split(":")[0] for line in lines[2:]] == ["0", "0.5", "1"]
    found = from_json(Sweep, kept)
    assert [p.strength for p in found.points] == [0, 0.5, 1]
    assert found.points[0].gain.mean == 0 != found.points[1].gain.mean
    json.dumps(kept, allow_nan=False)


def test_evaluate_and_the_sweep_share_their_pictures(server: Server, done: dict):
    """Strength 0 equals Evaluate's model before, strength 1 its model after: three sets instead of five."""
    folder = server.folder / "output" / "dreambooth_dpo" / "quick"
    assert len([p for p in folder.iterdir() if p.name.startswith("evaluation_")]) == 3
    before = {p: p.stat().st_mtime_ns for p in folder.glob("evaluation_*/images/*.png")}
    more = server.run(sweep_graph(strengths="0.5, 1, 1.5"))
    assert "sweep" in executed(more) and "evaluate" not in executed(more)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len([p for p in folder.iterdir() if p.name.startswith("evaluation_")]) == 4
    assert "sweep" not in executed(server.run(sweep_graph(strengths="0.5, 1, 1.5")))


def test_wrong_strengths_are_refused_before_anything_runs(server: Server):
    for text, said in (
        ("0, 9", "strength 9 is outside 0 to 4"),
        ("half", "Write them like 0, 0.5, 1."),
        ("0", "no strength is above 0"),
    ):
        status, answer = server.post("/prompt", {"prompt": sweep_graph(strengths=text)})
        assert said in str(answer["node_errors"])
        if status == 200:  # other branches still run: let them end
            server.wait(answer["prompt_id"])


def test_a_model_that_already_carries_an_adapter_is_refused(server: Server, done: dict):
    found = server.wait(server.queue(sweep_graph(model=["train", 0])))
    error = next(data for name, data in found["status"]["messages"] if name == "execution_error")
    assert error["node_id"] == "sweep"
    assert (
        "already carries a trained adapter" in error["exception_message"]
        and "the first train step" in error["exception_message"]
    )
