"""The nodes on a running ComfyUI: the whole loop, caching, outputs, messages and interrupts."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hosting import Server, comfyui_path, executed, messages, run_path
from safetensors.torch import load_file
from toy_graphs import lora_by_socket, rounds_in_one, tiny_rounds, toy_loop_graph

from dreambooth_dpo.dpo_core.run.folder import RunFolder

pytestmark = pytest.mark.usefixtures("comfyui")
ALL = set(toy_loop_graph())
WITH_PICTURES = {"concept", "sample", "score", "pairs", "look", "evaluate"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("größe und мой кот")) as running:
        yield running


@pytest.fixture(scope="module")
def done(server) -> dict:
    return server.run(toy_loop_graph())


def test_every_stage_runs_and_shows_something(server: Server, done: dict):
    assert executed(done) == ALL
    shown = done["outputs"]
    assert {n for n in shown if "images" in shown[n]} == WITH_PICTURES
    assert "pairs from 60 possible" in shown["pairs"]["text"][0]
    assert shown["train"]["text"][0].startswith("8 steps on ")
    report = shown["evaluate"]["text"][0]
    assert "16 held-out pictures of 8 prompts" in report
    titles = (
        "Fidelity:",
        "Alignment:",
        "Fidelity (judge):",
        "Alignment (judge):",
        "Copy-paste:",
        "Likeness to the photos' place",
        "Diversity",
    )
    assert all(title in report for title in titles)
    file = server.folder / "models" / "loras" / "dreambooth_dpo" / "quick_00001.safetensors"
    said = shown["save"]["text"][0].splitlines()
    assert said[0] == "saved as dreambooth_dpo/quick_00001.safetensors" and said[-1] == f"File: {file}"
    assert file.is_file()


def test_unchanged_inputs_rerun_nothing_and_a_new_window_draws_nothing(server: Server, done: dict):
    assert executed(server.run(toy_loop_graph())) == set()
    wider = server.run(toy_loop_graph(pairs={"angle_high": 80}))
    assert executed(wider) == {"pairs", "look", "train", "save", "evaluate"}
    said = wider["outputs"]["save"]["text"][0].splitlines()[0]
    assert said == "saved as dreambooth_dpo/quick_00002.safetensors"


def test_the_saved_lora_in_the_stock_loader_equals_the_live_adapter(server: Server, done: dict):
    """With one seed in KSampler, the live adapter and the file in LoraLoaderModelOnly draw the same picture.

    Strength 0 draws another one.
    """

    def picture(model: list) -> dict:
        return {
            "class_type": "KSampler",
            "inputs": {
                "model": model, "seed": 3, "steps": 6, "cfg": 1.0, "sampler_name": "dpmpp_2m", "scheduler": "normal",
                "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["empty", 0], "denoise": 1.0,
            },
        }  # fmt: skip

    def loader(strength: float) -> dict:
        name = "dreambooth_dpo/quick_00001.safetensors"
        return {
            "class_type": "LoraLoaderModelOnly",
            "inputs": {"model": ["toy", 0], "lora_name": name, "strength_model": strength},
        }

    graph = {
        **toy_loop_graph(train={"learning_rate": 1e-4}),
        "text": {
            "class_type": "CLIPTextEncode",
            "inputs": {"clip": ["toy", 1], "text": "a photo of a sks robot on grass"},
        },
        "empty": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
        "file": loader(1.0),
        "nothing": loader(0.0),
        "stock": lora_by_socket(["toy", 0], ["train", 1], 1.0),
    }
    sources = {
        "live": ["train", 0],
        "by_file": ["file", 0],
        "by_socket": ["stock", 0],
        "base": ["nothing", 0],
        "before": ["toy", 0],
    }
    for name, source in sources.items():
        graph[name] = picture(source)
        graph[f"{name}_picture"] = {"class_type": "VAEDecode", "inputs": {"samples": [name, 0], "vae": ["toy", 2]}}
        graph[f"{name}_saved"] = {
            "class_type": "SaveImage",
            "inputs": {"images": [f"{name}_picture", 0], "filename_prefix": name},
        }
    found = server.run(graph)["outputs"]
    pixels = {
        name: _pixels(server.folder / "output" / found[f"{name}_saved"]["images"][0]["filename"]) for name in sources
    }
    apart = {name: abs(pixels[name] - pixels["before"]).mean() for name in sources}
    assert apart["base"] == 0
    assert apart["live"] > 0.02, "the adapter changed nothing"
    for name in ("by_file", "by_socket"):
        assert abs(pixels[name] - pixels["live"]).mean() < apart["live"] / 10


def _pixels(path: Path):
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB")).astype(float)


def test_a_second_round_continues_from_the_live_adapter(server: Server, done: dict):
    graph = toy_loop_graph()
    for name in ("sample", "score", "pairs", "train"):
        again = {"class_type": graph[name]["class_type"], "inputs": dict(graph[name]["inputs"])}
        graph[f"{name}_2"] = again
    graph["sample_2"]["inputs"] |= {"model": ["train", 0], "seed": 1}
    graph["score_2"]["inputs"]["candidates"] = ["sample_2", 0]
    graph["pairs_2"]["inputs"]["scored"] = ["score_2", 0]
    graph["train_2"]["inputs"] |= {"model": ["train", 0], "pairs": ["pairs_2", 0], "train_seed": 1}
    graph["save"]["inputs"]["lora"] = ["train_2", 1]
    ran = server.run(graph)
    assert (
        {"sample_2", "score_2", "pairs_2", "train_2", "save"}
        <= executed(ran)
        <= {"sample_2", "score_2", "pairs_2", "train_2", "save"}
    )


def test_adding_a_round_reruns_no_earlier_round(server: Server):
    runs = server.folder / "output" / "dreambooth_dpo" / "rounds"
    server.run(rounds_in_one(2))
    before = {p: p.stat().st_mtime_ns for p in runs.rglob("*.safetensors")}
    said = len(server.said())
    server.run(rounds_in_one(3))
    after = {p: p.stat().st_mtime_ns for p in runs.rglob("*.safetensors")}
    assert {p: after[p] for p in before} == before, "an earlier round was written again"
    assert len([p for p in runs.iterdir() if p.name.startswith("candidates_")]) == 3
    assert len(list((runs / "training").iterdir())) == 3
    assert server.said()[said:].count("Prompt executed") == 1


def test_wrong_values_are_refused_before_anything_runs(server: Server):
    for changes, words in (
        ({"sample": {"run_name": "../elsewhere"}}, "cannot be a folder name"),
        ({"pairs": {"angle_low": 70, "angle_high": 20}}, "must be below angle_high"),
        ({"scorer": {"scorer": "ViT-L"}}, "models/dreambooth_dpo_scorers"),
        ({"save": {"filename_prefix": "../../x"}}, "is not a valid name under models/loras"),
    ):
        status, answer = server.post("/prompt", {"prompt": toy_loop_graph(**changes)})
        errors = answer.get("node_errors") if status == 400 else answer["node_errors"]
        assert words in str(errors), f"{changes}: {answer}"
        if status == 200:  # other branches still run: wait for them
            server.wait(answer["prompt_id"])


def test_errors_name_the_value_and_the_remedy(server: Server, done: dict):
    for changes, words in (
        ({"pairs": {"rule": "weighted_sum", "diversity": 0.5}}, "and candidates_per_prompt is 4: the better half"),
        ({"pairs": {"margin": 9.5}}, "no pair fits the window 20..70 degrees"),
        ({"prompts": {"text": "a robot in the snow"}}, "does not name the concept"),
        ({"train": {"rank": 4, "model": ["train_1", 0]}}, "carries an adapter of rank 8"),
    ):
        graph = toy_loop_graph()
        graph["train_1"] = {"class_type": "DBDPO_TrainStep", "inputs": dict(graph["train"]["inputs"])}
        for name, inputs in changes.items():
            graph[name]["inputs"].update(inputs)
        found = server.wait(server.queue(graph))
        assert words in messages(found)["execution_error"]["exception_message"]


def test_dpo_rounds_refuses_settings_that_do_not_go_together_before_it_draws(server: Server):
    """In a sentence, as the other nodes do."""
    wrong = (
        ({"diversity": 0.5}, "diversity 0.5 needs 5 candidates of a prompt or more, and candidates_per_prompt is 4: "),
        ({"diversity": 0.5, "candidates_per_prompt": 6, "objective": "reward_gap"}, "objective reward_gap does not go"),
    )
    for given, words in wrong:
        graph = tiny_rounds("refused", 1, 1)
        graph["rounds"]["inputs"] |= {"rule": "lambda_harmonic", **given}
        found = messages(server.wait(server.queue(graph)))["execution_error"]["exception_message"]
        assert found.startswith(words) and found.rstrip().endswith(".") and "pydantic" not in found, found
    assert not list((server.folder / "output" / "dreambooth_dpo" / "refused").glob("*/images/*"))


def test_a_deleted_run_folder_is_drawn_again(server: Server, done: dict):
    graph = toy_loop_graph(sample={"run_name": "lost"})
    server.run(graph)
    folder = server.folder / "output" / "dreambooth_dpo" / "lost"
    folder.rename(folder.with_name("lost elsewhere"))
    again = executed(server.run(graph))
    assert {"sample", "score", "pairs", "train", "evaluate"} <= again and "toy" not in again


@pytest.mark.parametrize(
    ("rule", "objective"),
    [
        ("angle_window", "ipo"),
        ("pareto", "kto"),
        ("lambda_harmonic", "mapo"),
        ("weighted_sum", "hinge"),
        ("random", "raft"),
        ("lambda_harmonic", "dgpo"),  # with the loser guard, on groups
    ],
)
def test_other_rules_and_objectives_run_from_the_same_candidates(server: Server, done: dict, rule: str, objective: str):
    graph = toy_loop_graph(
        pairs={"rule": rule, "window": "auto", "steer": 0.6, "fidelity_weight": 0.4},
        train={"objective": objective, "loser_guard": 0.3, "train_steps": 3},
    )
    del graph["evaluate"], graph["save"]
    graph["seen"] = {"class_type": "PreviewImage", "inputs": {"images": ["train", 2]}}
    sets = {p.name for p in run_path(server, "quick").iterdir()}
    ran = server.run(graph)
    assert {"pairs", "look", "train", "seen"} <= executed(ran)
    assert {p.name for p in run_path(server, "quick").iterdir()} == sets, "candidates were drawn again"
    assert ran["outputs"]["train"]["text"][0].startswith("3 steps on ")


@pytest.mark.slow  # 45 s; test_younger_widgets runs each of them
def test_newer_widgets_run_and_make_a_new_set(server: Server, done: dict):
    """guidance_until, a batch size from free memory, and a reference bank."""
    graph = toy_loop_graph(
        sample={"run_name": "younger", "cfg": 3.0, "guidance_until": 0.5, "batch_size": 0},
        train={"reference_bank": 1, "train_steps": 6},
    )
    del graph["look"], graph["save"]
    ran = server.run(graph)
    assert ran["outputs"]["train"]["text"][0].startswith("6 steps on ") and executed(ran) >= {
        "sample",
        "train",
        "evaluate",
    }
    (folder,) = run_path(server, "younger").glob("candidates_*")
    with RunFolder(run_path(server, "younger")) as run:
        kept = run.candidates(folder.name)
    assert len(kept) == 40 and {(c.position // 16, c.position % 16) for c in kept} == {(c.chunk, c.row) for c in kept}


def interrupt_when(server: Server, graph: dict, run_name: str, pattern: str, count: int = 1) -> None:
    """Queue a graph and interrupt it once its run folder has `count` more files of the pattern."""
    before = len(list(run_path(server, run_name).glob(pattern)))
    prompt, until = server.queue(graph), time.monotonic() + 120
    while len(list(run_path(server, run_name).glob(pattern))) < before + count:
        assert time.monotonic() < until, f"{pattern} did not come"
        time.sleep(0.05)
    server.post("/interrupt", {})
    assert "execution_interrupted" in messages(server.wait(prompt))


def draws_as_before(server: Server, run_name: str) -> bool:
    """Whether the MODEL draws the small graph's first set byte for byte as in the run `quick`."""
    graph = toy_loop_graph(sample={"run_name": run_name})
    for node in ("train", "evaluate", "save", "look", "pairs"):
        del graph[node]
    graph["seen"] = {"class_type": "PreviewImage", "inputs": {"images": ["sample", 1]}}
    server.run(graph)
    (fresh,) = run_path(server, run_name).glob("candidates_*")
    # The set's name is a hash of its inputs: another name would mean another model.
    before = run_path(server, "quick") / fresh.name
    assert before.is_dir()
    names = sorted(p.name for p in (fresh / "images").iterdir())
    assert len(names) == 40
    return all((fresh / "images" / n).read_bytes() == (before / "images" / n).read_bytes() for n in names)


def test_sampling_resumes_after_an_interrupt(server: Server, done: dict):
    graph = toy_loop_graph(sample={"run_name": "stopped 1", "candidates_per_prompt": 30})
    interrupt_when(server, graph, "stopped 1", "candidates_*/latents/00001.safetensors")
    kept = {p: p.stat().st_mtime_ns for p in run_path(server, "stopped 1").glob("candidates_*/images/*.png")}
    assert 64 <= len(kept) < 300
    assert draws_as_before(server, "after 1")
    server.run(graph)
    whole = list(run_path(server, "stopped 1").glob("candidates_*/images/*.png"))
    assert len(whole) == 300 and all(p.stat().st_mtime_ns == kept[p] for p in sorted(kept)[:64])


def test_training_resumed_after_an_interrupt_equals_an_uninterrupted_run(server: Server, done: dict):
    steps = {"train_steps": 24, "pairs_per_step": 8}
    graph = toy_loop_graph(train=steps, sample={"run_name": "stopped 2"}, save={"filename_prefix": "resumed"})
    del graph["evaluate"]
    interrupt_when(server, graph, "stopped 2", "training/*/states/training_0.safetensors")
    assert draws_as_before(server, "after 2"), "something of the adapter is left on the model"
    server.run(graph)
    unbroken = toy_loop_graph(train=steps, sample={"run_name": "never stopped"}, save={"filename_prefix": "unbroken"})
    del unbroken["evaluate"]
    server.run(unbroken)
    one, two = (
        load_file(server.folder / "models" / "loras" / f"{name}_00001.safetensors") for name in ("resumed", "unbroken")
    )
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_an_interrupt_while_evaluating_leaves_the_original_model_unchanged(server: Server, done: dict):
    graph = toy_loop_graph(evaluate={"seeds_per_prompt": 30})
    # The second set to begin is the trained model's.
    interrupt_when(server, graph, "quick", "evaluation_*/latents/00001.safetensors", count=2)
    assert draws_as_before(server, "after 3")
    report = server.run(graph)["outputs"]["evaluate"]["text"][0]
    assert "240 held-out pictures of 8 prompts" in report
