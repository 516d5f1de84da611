"""Rounds without pairs on a running ComfyUI: an error in the first round, an early stop in a later one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosting import Server, comfyui_path
from safetensors.torch import load_file
from toy_graphs import PAIRS, SAMPLING, TRAINING, node, rounds_by_hand, toy_loop_graph

pytestmark = pytest.mark.usefixtures("comfyui")
TOO_MUCH = 9.5
"""A margin, in standard deviations, that no pair reaches."""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("pairless")) as running:
        yield running


def chain(run_name: str, barren: int, rounds: int = 3, linked: bool = True) -> dict:
    """Rounds by hand, one of them without pairs.

    linked: the pairs of each round are connected to Keep Best Round.
    """
    graph = rounds_by_hand(run_name, rounds)
    graph[f"pairs_{barren}"]["inputs"]["margin"] = TOO_MUCH
    for n in range(1, rounds + 1) if linked else ():
        graph[f"keep_{n}"]["inputs"]["pairs"] = [f"pairs_{n}", 0]
    return graph


def refused(server: Server, graph: dict) -> str:
    found = server.wait(server.queue(graph))
    return dict(found["status"]["messages"])["execution_error"]["exception_message"]


def counted(server: Server, run_name: str) -> tuple[int, int, int]:
    """Number of candidate sets, trainings and evaluation sets in a run folder."""
    run = server.folder / "output" / "dreambooth_dpo" / run_name
    return len(list(run.glob("candidates_*"))), len(list(run.glob("training/*"))), len(list(run.glob("evaluation_*")))


def test_a_later_round_without_pairs_stops_early_and_says_why(server: Server):
    """Round 2 is drawn but not trained or measured, and round 3 is not drawn; round 1 stays kept."""
    graph = chain("later", barren=2)
    graph["first"] = node("SaveLora", lora=["keep_1", 1], filename_prefix="later first")
    done = server.run(graph)
    assert counted(server, "later") == (2, 1, 2)
    said = done["outputs"]["said"]["text"][0]
    assert said.startswith(("Round 1 is kept: gain +", "The original is kept: ")) and "\nRound 2" not in said
    assert "Stopped: in round 2 no pair fits the window 20..70 degrees: 0 pairs from 60 possible" in said
    assert "Widen the window" in said and "One more round may help" not in said
    assert done["outputs"]["keep_3"]["text"] == done["outputs"]["keep_2"]["text"] == [said]
    kept, first = (
        load_file(server.folder / "models" / "loras" / f"{name}_00001.safetensors") for name in ("later", "later first")
    )
    assert kept.keys() == first.keys() and all(kept[k].equal(first[k]) for k in kept)


def test_the_first_round_without_pairs_is_an_error_that_names_the_remedy(server: Server):
    said = refused(server, chain("first", barren=1))
    assert "no pair fits the window 20..70 degrees: 0 pairs from 60 possible" in said and "Widen the window" in said
    assert counted(server, "first")[1:] == (0, 0)


def test_a_later_round_without_pairs_is_an_error_if_pairs_is_not_connected(server: Server):
    assert "no pair fits the window" in refused(server, chain("unlinked", barren=2, linked=False))


def test_without_pairs_there_is_a_cloud_but_no_preview(server: Server):
    graph = toy_loop_graph(sample={"run_name": "cloud"}, pairs={"margin": TOO_MUCH})
    for name in ("train", "save", "evaluate"):
        del graph[name]
    assert "Widen the window" in refused(server, graph)
    del graph["look"]
    graph["seen"] = {"class_type": "PreviewImage", "inputs": {"images": ["pairs", 1]}}
    assert "Widen the window" in server.run(graph)["outputs"]["pairs"]["text"][0]


def test_dpo_rounds_connects_the_pairs_of_every_later_round(comfyui: Path):
    from dreambooth_dpo.nodes.schema.rounds import Rounds

    links = {name: [name, 0] for name in ("model", "clip", "vae", "concept", "prompts", "scorer")}
    graph = Rounds.execute(**links, rounds=3, run_name="x", **SAMPLING, **PAIRS, **TRAINING).expand
    keeps = [key for key in graph if graph[key]["class_type"] == "DBDPO_KeepBest"]
    pairs = [key for key in graph if graph[key]["class_type"] == "DBDPO_BuildPairs"]
    assert [graph[key]["inputs"].get("pairs") for key in keeps] == [None, [pairs[1], 0], [pairs[2], 0]]
