"""Keep Best Round on a running ComfyUI, by hand and in DPO Rounds: what is kept, and early stopping."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosting import Server, comfyui_path, executed
from safetensors.torch import load_file
from toy_graphs import TOY_PROMPTS, loop_inputs, rounds_by_hand, toy_loop_graph, words

pytestmark = pytest.mark.usefixtures("comfyui")
HARM = {"learning_rate": 0.02, "train_steps": 6}
"""Training settings that ruin the model within a few steps."""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("keep")) as running:
        yield running


def rounds_graph(run_name: str, rounds: int, training: dict | None = None, **given: object) -> dict:
    graph = toy_loop_graph(train=training or {})
    inputs = loop_inputs(graph) | {"model": ["toy", 0], "run_name": run_name, "rounds": rounds, **given}
    kept = {k: graph[k] for k in ("toy", "concept", "prompts", "scorer", "judge", "save")}
    kept["save"]["inputs"] = {"lora": ["rounds", 1], "filename_prefix": run_name}
    seen = {f"seen_{i}": {"class_type": "PreviewImage", "inputs": {"images": ["rounds", i]}} for i in (2, 4)}
    return {**kept, **seen, "rounds": {"class_type": "DBDPO_Rounds", "inputs": inputs}, "said": words(["rounds", 5])}


def path(server: Server, run_name: str) -> Path:
    return server.folder / "output" / "dreambooth_dpo" / run_name


def counted(server: Server, run_name: str) -> tuple[int, int, int]:
    """Number of candidate sets, trainings and evaluation sets in a run folder."""
    run = path(server, run_name)
    return len(list(run.glob("candidates_*"))), len(list(run.glob("training/*"))), len(list(run.glob("evaluation_*")))


def written(server: Server, run_name: str) -> dict[Path, int]:
    """All files of a run except its records, with their modification times."""
    files = (p for p in path(server, run_name).rglob("*") if p.is_file() and ".sqlite" not in p.name)
    return {p: p.stat().st_mtime_ns for p in files}


def report(history: dict) -> str:
    return history["outputs"]["said"]["text"][0]


def lora(server: Server, name: str) -> dict:
    return load_file(server.folder / "models" / "loras" / f"{name}_00001.safetensors")


# --- rounds by hand ---


def test_a_chain_returns_model_and_lora_of_the_kept_round(server: Server):
    graph = rounds_by_hand("chain", train_steps=20, learning_rate=4e-4)
    graph["prompts"]["inputs"] |= TOY_PROMPTS  # enough of them to show a gain
    graph |= {
        f"save_{n}": {
            "class_type": "DBDPO_SaveLora",
            "inputs": {"lora": [f"train_{n}", 1], "filename_prefix": f"round {n}"},
        }
        for n in (1, 2)
    }
    done = server.run(graph)
    assert counted(server, "chain") == (2, 2, 3)
    said = report(done)
    number = next(n for n in (1, 2) if said.startswith(f"Round {n} is kept: gain +"))
    assert "40 held-out pictures of 20 prompts" in said and "\nRound 1: +" in said and "\nRound 2: " in said
    kept, of_round = lora(server, "chain"), lora(server, f"round {number}")
    assert kept.keys() == of_round.keys() and all(kept[k].equal(of_round[k]) for k in kept)
    assert {"text", "images"} <= set(done["outputs"]["keep_1"]) and done["outputs"]["keep_2"]["text"] == [said]
    # Pictures of the returned model are reused: the stop rule had them drawn.
    inputs = {
        k: v
        for k, v in graph["keep_2"]["inputs"].items()
        if k in ("before", "clip", "vae", "scorer", "judge", "seeds_per_prompt", "seed")
    }
    inputs |= {"after": ["keep_2", 0], "candidates": ["keep_2", 5]}
    before = written(server, "chain")
    evaluated = server.run({**graph, "evaluate": {"class_type": "DBDPO_Evaluate", "inputs": inputs}})
    assert executed(evaluated) == {"evaluate"} and written(server, "chain") == before
    verdict = evaluated["outputs"]["evaluate"]["text"][0]
    assert "Fidelity: " in verdict
    # It knows the rounds that were measured: the advice is that of Keep Best Round where the verdict is a gain.
    rose = number == 2 and "Stopped: " not in said
    assert ("One more round may help: the gain still rose in the last round." in said) == rose
    if verdict.startswith("It got better") and "but" not in verdict.splitlines()[0]:
        assert verdict.splitlines()[1] == said.splitlines()[1]


def test_a_harmful_round_keeps_the_original_and_stops_the_loop(server: Server):
    graph = rounds_by_hand("harm", **HARM)
    done = server.run(graph)
    assert counted(server, "harm") == (1, 1, 2), "round 2 was drawn, trained or measured"
    assert (
        report(done).startswith("The original is kept: ")
        and "Stopped: " in report(done)
        and "\nRound 2" not in report(done)
    )
    assert done["outputs"]["keep_2"]["text"] == done["outputs"]["keep_1"]["text"], (
        "the stop is said by the later node, too"
    )
    saved = done["outputs"]["save"]["text"][0].splitlines()[0]
    assert saved == "saved as harm_00001.safetensors: it changes nothing, because the original is kept"
    kept = lora(server, "harm")
    assert all(not kept[k].any() for k in kept if ".lora_up" in k) and any(
        kept[k].any() for k in kept if ".lora_down" in k
    )
    # The returned model names the same set of candidates as the original: nothing is drawn.
    again = {"class_type": "DBDPO_SampleCandidates", "inputs": {**graph["sample_1"]["inputs"], "model": ["keep_2", 0]}}
    server.run({**graph, "again": again, "seen": {"class_type": "PreviewImage", "inputs": {"images": ["again", 1]}}})
    assert counted(server, "harm") == (1, 1, 2)


@pytest.mark.slow  # 80 s: three rounds on a model with an adapter of its own
def test_an_original_that_carries_an_adapter_keeps_that_one(server: Server):
    """If training continues from a trained model, the LoRA of the original is that adapter."""
    graph = rounds_by_hand("rider")
    graph["train_2"]["inputs"] |= HARM
    del graph["keep_1"], graph["keep_2"]["inputs"]["so_far"]
    graph["keep_2"]["inputs"]["before"] = ["train_1", 0]
    graph["first"] = {
        "class_type": "DBDPO_SaveLora",
        "inputs": {"lora": ["train_1", 1], "filename_prefix": "rider first"},
    }
    done = server.run(graph)
    assert report(done).startswith("The original is kept: ")
    assert done["outputs"]["save"]["text"][0].endswith("it is the one that came in, because the original is kept")
    kept, first = lora(server, "rider"), lora(server, "rider first")
    assert kept.keys() == first.keys() and all(kept[k].equal(first[k]) for k in kept)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora": ["train_1", 1]}, "after and lora come from two different trainings"),
        ({"seeds_per_prompt": 3}, "so_far was measured with other inputs or settings"),
        ({"judge": None}, "so_far was measured with other inputs or settings"),
    ],
)
def test_mismatched_inputs_are_refused_before_drawing(server: Server, changes: dict, said: str):
    graph = rounds_by_hand("refused")
    server.run(rounds_by_hand("refused", 1))
    graph["keep_2"]["inputs"] |= changes
    graph["keep_2"]["inputs"] = {k: v for k, v in graph["keep_2"]["inputs"].items() if v is not None}
    found = server.wait(server.queue(graph))
    assert said in dict(found["status"]["messages"])["execution_error"]["exception_message"]
    assert counted(server, "refused")[2] == 2


def test_a_training_stopped_by_a_guard_stops_the_loop(comfyui: Path):
    from dreambooth_dpo.dpo_core.evaluation.stop_rule import Interval, Standing
    from dreambooth_dpo.dpo_core.settings import StopSettings
    from dreambooth_dpo.nodes.stages.keep_best import _decide

    good = Standing(1, Interval(0.4, 0.2, 0.6))
    assert not _decide([good], StopSettings(), None).stop
    decision = _decide(
        [good], StopSettings(), "the loss is nan and the gradient norm nan at step 3: training stopped. Lower it."
    )
    assert (decision.stop, decision.kept) == (True, 1)
    assert (
        decision.reason
        == "a guard stopped the training of round 1 (the loss is nan and the gradient norm nan at step 3)"
    )


# --- DPO Rounds ---


@pytest.mark.slow  # 95 s; test_loop adds a round too, without measuring
def test_adding_a_round_reruns_no_earlier_round_and_older_graphs_measure(server: Server):
    """The graph lacks the newer widgets, like one saved before they existed."""
    done = server.run(rounds_graph("more", 1))
    assert counted(server, "more") == (1, 1, 2)
    assert "48 held-out pictures of 8 prompts" in report(done)
    before = written(server, "more")
    done = server.run(rounds_graph("more", 2))
    after = written(server, "more")
    assert {p: after[p] for p in before} == before, "an earlier round was written again"
    assert counted(server, "more") == (2, 2, 3)
    assert "\nRound 1: " in report(done) and "\nRound 2: " in report(done) and "Fidelity (judge)" not in report(done)


def test_after_early_stopping_nothing_is_drawn_trained_or_measured(server: Server):
    """The winner error of training stops the loop: without a judge and held-out photos no guard detects the harm."""

    def graph(rounds: int) -> dict:
        made = rounds_graph("ended", rounds, HARM, scorer_2=["judge", 0], keep="best", seeds_per_prompt=2)
        del made["concept"]["inputs"]["held_out"]
        return made

    done = server.run(graph(3))
    assert counted(server, "ended") == (1, 1, 2)
    assert report(done).startswith("The original is kept: ") and "Fidelity (2nd scorer)" in report(done)
    assert "Stopped: in round 1 training raised the winner's error by " in report(done)
    assert done["outputs"]["seen_2"]["images"] and done["outputs"]["seen_4"]["images"]
    assert "it changes nothing" in done["outputs"]["save"]["text"][0]
    before = written(server, "ended")
    assert report(server.run(graph(4))) == report(done)
    assert written(server, "ended") == before


@pytest.mark.slow  # 50 s: what the loop did before rounds were measured
def test_keep_last_runs_all_rounds_and_measures_nothing(server: Server):
    done = server.run(rounds_graph("all", 2, HARM, judge=["judge", 0], keep="last"))
    assert counted(server, "all") == (2, 2, 0)
    assert report(done).startswith("The last of 2 rounds is kept without measuring")
    assert done["outputs"]["save"]["text"][0].splitlines()[0] == "saved as all_00001.safetensors"
    assert any(value.any() for key, value in lora(server, "all").items() if ".lora_up" in key)


@pytest.mark.slow  # 200 s; test_loop interrupts an evaluation too
def test_an_interrupt_while_measuring_changes_no_result(server: Server):
    """Interrupted while the trained model draws, the loop ends like an uninterrupted one.

    The incoming MODEL is unchanged.
    """

    def graph(run_name: str) -> dict:
        return rounds_graph(run_name, 2, judge=["judge", 0], keep="best", seeds_per_prompt=4)

    prompt, until = server.queue(graph("broken")), time.monotonic() + 120
    while len(list(path(server, "broken").glob("evaluation_*/latents/00000.safetensors"))) < 2:
        assert time.monotonic() < until, "the trained model was never measured"
        time.sleep(0.05)
    server.post("/interrupt", {})
    assert "execution_interrupted" in dict(server.wait(prompt)["status"]["messages"])
    kept = written(server, "broken")
    done = server.run(graph("broken"))
    after = written(server, "broken")
    assert {p: after[p] for p in kept} == kept
    whole = server.run(graph("unbroken"))
    assert report(whole) == report(done)
    names = [sorted(str(p.relative_to(path(server, n))) for p in written(server, n)) for n in ("broken", "unbroken")]
    assert names[0] == names[1], "a set has another name: some model was another"
    one, two = lora(server, "broken"), lora(server, "unbroken")
    assert one.keys() == two.keys() and all(one[k].equal(two[k]) for k in one)
