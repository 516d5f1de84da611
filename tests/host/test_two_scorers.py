"""Two reward scorers on a running ComfyUI."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from hosting import Server, comfyui_path, executed, messages, run_path
from toy_graphs import rounds_in_one, toy_loop_graph

from dreambooth_dpo.dpo_core.pairs.rules import angle_window_pairs
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.scoring.sets import axis_scores
from dreambooth_dpo.dpo_core.settings import PairSettings

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("two scorers")) as running:
        yield running


def second_scorer(graph: dict, node: str) -> dict:
    """The graph with the judge's model as a second scorer of a node that scores."""
    graph[node]["inputs"]["scorer_2"] = ["scorer_2", 0]
    second = {
        "class_type": "DBDPO_LoadScorer",
        "inputs": {"scorer": "toybox judge", "architecture": "", "augment": True},
    }
    return {**graph, "scorer_2": second}


def test_two_scorers_pair_by_the_worse_score(server: Server):
    """No candidate is drawn again, and the pairs equal those that the engine makes from the stored scores of both."""
    changes = {"sample": {"run_name": "two scorers"}, "train": {"train_steps": 3}, "pairs": {"combine": "worst"}}
    alone, both = toy_loop_graph(**changes), second_scorer(toy_loop_graph(**changes), "score")
    for graph in (alone, both):
        del graph["evaluate"], graph["save"]
        graph["seen"] = {"class_type": "PreviewImage", "inputs": {"images": ["train", 2]}}
    server.run(alone)
    path = run_path(server, "two scorers")
    sets = {p.name for p in path.iterdir()}
    ran = server.run(both)
    assert {"scorer_2", "score", "pairs", "look", "train"} <= executed(ran)
    assert {p.name for p in path.iterdir()} == sets and ran["outputs"]["train"]["text"][0].startswith("3 steps on ")
    assert {n for n in ran["outputs"] if "images" in ran["outputs"][n]} >= {"score", "pairs", "look", "seen"}
    name = next(n for n in sets if n.startswith("candidates_"))
    with RunFolder(path) as run, sqlite3.connect(path / "records.sqlite") as records:
        scorers = sorted(row[0] for row in records.execute("SELECT DISTINCT scorer FROM scores"))
        assert sorted(s.rpartition("_")[0] for s in scorers) == ["alignment", "alignment_2", "fidelity", "fidelity_2"]
        # The first scorer before the second, as the node names them: scores are combined on the first one's scale.
        axes = [
            sorted((s for s in scorers if s.startswith(axis)), key=lambda s: "_2_" in s)
            for axis in ("fidelity", "alignment")
        ]
        prompt_of = np.asarray([c.prompt_index for c in run.candidates(name)])
        limits = {
            k: both["pairs"]["inputs"][k]
            for k in ("angle_low", "angle_high", "margin", "max_pairs_per_prompt", "max_uses")
        }
        expected, _ = angle_window_pairs(
            prompt_of, *(axis_scores(run, name, names, "worst") for names in axes), PairSettings(**limits)
        )
        lists = [run.pairs(fact.removeprefix("yield_")) for fact in run.facts(f"yield_{name}_pairs_")]
    assert len(lists) == 2 and lists[0] != lists[1] and expected in lists


# slow: the rule itself has tests of its own; what takes 40 s here is the loop around it
@pytest.mark.parametrize("rule", ["lambda_harmonic", pytest.param("pareto", marks=pytest.mark.slow)])
def test_two_scorers_in_rounds(server: Server, rule: str):
    """Pair rules that use cosines accept two scorers; the same model twice is refused when scoring."""
    graph = second_scorer(rounds_in_one(1), "rounds")
    graph["rounds"]["inputs"] |= {"combine": "worst", "run_name": f"both {rule}", "rule": rule}
    server.run(graph)
    sets = sorted(p.name for p in run_path(server, f"both {rule}").iterdir())
    twice = toy_loop_graph(score={"scorer_2": ["scorer", 0]})
    said = messages(server.wait(server.queue(twice)))["execution_error"]["exception_message"]
    assert "is given twice as a reward" in said
    assert sorted(p.name for p in run_path(server, f"both {rule}").iterdir()) == sets
