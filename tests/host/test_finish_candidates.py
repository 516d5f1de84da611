"""Finish Candidates on a running ComfyUI: drafts select, and finished pictures equal those drawn without drafts."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hosting import Server, comfyui_path, executed, run_path
from toy_graphs import PAIRS, SAMPLING, TRAINING, node, rounds_in_one, toy_loop_graph

from dreambooth_dpo.dpo_core.loop.drafts import in_pairs
from dreambooth_dpo.dpo_core.run.folder import RunFolder

pytestmark = pytest.mark.usefixtures("comfyui")
STEPS, DRAFT_STEPS = 6, 3
TOO_MUCH = 9.5
"""A margin, in standard deviations, that no pair reaches."""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("drafts")) as running:
        yield running


def drafted(run_name: str, **changes: dict) -> dict:
    """A round whose candidates are drafted first; nodes after the drafts keep their usual names."""
    graph = toy_loop_graph(sample={"run_name": run_name, "steps": STEPS}, train={"train_steps": 3})
    del graph["look"], graph["evaluate"]
    graph["draft"] = node("SampleCandidates", **{**graph.pop("sample")["inputs"], "steps": DRAFT_STEPS})
    graph["draft_score"] = node("Score", candidates=["draft", 0], scorer=["scorer", 0])
    graph["draft_pairs"] = node("BuildPairs", scored=["draft_score", 0], **PAIRS)
    toy = {"model": ["toy", 0], "clip": ["toy", 1], "vae": ["toy", 2]}
    graph["finish"] = node("FinishCandidates", **toy, pairs=["draft_pairs", 0], steps=STEPS)
    graph["score"]["inputs"]["candidates"] = ["finish", 0]
    graph["preview"] = {"class_type": "PreviewImage", "inputs": {"images": ["finish", 1]}}
    for name, inputs in changes.items():
        graph[name]["inputs"].update(inputs)
    return graph


def sets(path: Path, kind: str) -> list[str]:
    return sorted(p.name for p in path.glob(f"{kind}_*"))


def refused(server: Server, graph: dict) -> str:
    found = server.wait(server.queue(graph))
    return dict(found["status"]["messages"])["execution_error"]["exception_message"]


def test_only_drafts_in_pairs_are_finished_and_equal_full_sampling(server: Server):
    done = server.run(drafted("drafted"))
    path = run_path(server, "drafted")
    (drafts,), (finished,) = sets(path, "candidates"), sets(path, "finished")
    plain = toy_loop_graph(sample={"run_name": "plain", "steps": STEPS})
    seen = {"seen": {"class_type": "PreviewImage", "inputs": {"images": ["sample", 1]}}}
    server.run({**{k: plain[k] for k in ("toy", "concept", "prompts", "sample")}, **seen})
    whole_path = run_path(server, "plain")
    with RunFolder(path) as run, RunFolder(whole_path) as whole:
        chosen = in_pairs(run, next(n.removeprefix("yield_") for n in run.facts(f"yield_{drafts}")))
        count = len(run.candidates(drafts))
        assert len(run.candidates(finished)) == len(chosen) < count
        (name,) = sets(whole_path, "candidates")
        assert [c.seed for c in run.candidates(finished)] == [whole.candidates(name)[i].seed for i in chosen]
        difference = np.abs(run.images(finished).astype(int) - whole.images(name, chosen))
        assert difference.max() <= 1, "to rounding: batches differ"
    assert done["outputs"]["finish"]["text"] == [
        f"{len(chosen)} of {count} drafts are in pairs and were drawn in full, "
        f"in {STEPS} steps instead of {DRAFT_STEPS}."
    ]
    assert "correlation between scores of drafts and of pictures: fidelity 0." in done["outputs"]["pairs"]["text"][0]
    assert "correlate" not in done["outputs"]["draft_pairs"]["text"][0]
    assert done["outputs"]["train"]["text"][0].startswith("3 steps on ")


def test_another_margin_after_finishing_draws_nothing_again(server: Server):
    server.run(drafted("again"))
    ran = server.run(drafted("again", pairs={"margin": 0.25}))
    assert executed(ran) >= {"pairs", "train"} and not executed(ran) & {"draft", "draft_score", "finish"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"finish": {"steps": DRAFT_STEPS}},
            "the drafts have 3 steps and the finished pictures would have 3: set fewer",
        ),
        ({"draft": {"sampler_name": "euler_ancestral"}}, "sampler euler_ancestral adds noise while sampling"),
        ({"finish": {"model": ["other", 0]}}, "these drafts were drawn by another MODEL"),
        ({"draft": {"earlier": ["before", 0]}}, "these drafts hold candidates of a round before"),
        ({"draft_pairs": {"margin": TOO_MUCH}}, "no pair fits the window 20..70 degrees"),
    ],
)
def test_drafts_that_cannot_be_finished_are_refused(server: Server, changes: dict, said: str):
    graph = drafted("refused", **changes)
    graph["other"] = node("LoadToybox", concept=1, personalized=False, steps=20)
    drawn = {name: value for name, value in graph["draft"]["inputs"].items() if name != "earlier"}
    graph["before"] = node("SampleCandidates", **{**drawn, "seed": 5})
    assert said in refused(server, graph)
    assert sets(run_path(server, "refused"), "finished") == []


def test_dpo_rounds_drafts_every_round(server: Server):
    graph = rounds_in_one(2)
    graph["rounds"]["inputs"] |= {
        "run_name": "rounds drafted",
        "draft_steps": DRAFT_STEPS,
        "steps": STEPS,
        "train_steps": 2,
    }
    server.run(graph)
    path = run_path(server, "rounds drafted")
    assert len(sets(path, "candidates")) == len(sets(path, "finished")) == 2
    with RunFolder(path) as run:
        for name in sets(path, "finished"):
            assert (
                run.fact(f"told_{name}")["finished"]
                == len(run.candidates(name))
                < 0.9 * run.fact(f"told_{name}")["drafted"]
            )


LINKS = {name: [name, 0] for name in ("model", "clip", "vae", "concept", "prompts", "scorer")}


def test_dpo_rounds_checks_draft_pairs_before_finishing(comfyui: Path):
    from dreambooth_dpo.nodes.schema.rounds import Rounds

    graph = Rounds.execute(**LINKS, rounds=2, run_name="x", draft_steps=2, **SAMPLING, **PAIRS, **TRAINING).expand
    by_kind = {
        kind: [k for k in graph if graph[k]["class_type"] == f"DBDPO_{kind}"]
        for kind in ("KeepBest", "BuildPairs", "FinishCandidates")
    }
    first, second = (graph[k]["inputs"] for k in by_kind["KeepBest"])
    of_drafts = [graph[k]["inputs"]["pairs"] for k in by_kind["FinishCandidates"]]
    assert "drafts" not in first and second["drafts"] == of_drafts[1] != second["pairs"]
    assert [k["candidates"] for k in (first, second)] == [[k, 0] for k in by_kind["FinishCandidates"]]
    assert len(by_kind["BuildPairs"]) == 4
    steps = sorted(
        n["inputs"]["steps"]
        for n in graph.values()
        if n["class_type"] in ("DBDPO_SampleCandidates", "DBDPO_FinishCandidates")
    )
    assert steps == [2, 2, SAMPLING["steps"], SAMPLING["steps"]]


def test_keep_best_requests_drafts_then_pairs_and_stops_if_either_is_empty(nodes, monkeypatch):
    node_ = nodes["DBDPO_KeepBest"]
    no_pairs = import_module(f"{node_.__module__.partition('.schema.')[0]}.stages.no_pairs")
    monkeypatch.setattr(no_pairs, "lacking", lambda pairs: "none" if pairs == "empty" else None)
    going = type("Kept", (), {"decision": type("Decision", (), {"stop": False})()})()
    links = {"drafts": None, "pairs": None, "after": None, "lora": None, "candidates": None}
    assert node_.check_lazy_status(so_far=going, **links) == ["drafts"]
    assert node_.check_lazy_status(so_far=going, **{**links, "drafts": "empty"}) == []
    assert node_.check_lazy_status(so_far=going, **{**links, "drafts": "some"}) == ["pairs"]
    assert node_.check_lazy_status(so_far=going, **{**links, "drafts": "some", "pairs": "empty"}) == []
    assert node_.check_lazy_status(so_far=going, **{**links, "drafts": "some", "pairs": "some"}) == [
        "after",
        "lora",
        "candidates",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"draft_steps": 20, "steps": 20}, "the drafts have 20 steps and the finished pictures would have 20"),
        ({"draft_steps": 6, "sampler_name": "dpmpp_sde"}, "sampler dpmpp_sde adds noise while sampling"),
        ({"draft_steps": 1001}, "draft_steps is 1001: it must be a whole number from 0 to 1000."),
        ({"steps": -1}, "steps is -1: it must be a whole number from 0 to 1000."),
    ],
)
def test_dpo_rounds_refuses_useless_drafts_before_anything_runs(nodes, given: dict, said: str):
    assert said in nodes["DBDPO_Rounds"].validate_inputs(**given)
    assert nodes["DBDPO_Rounds"].validate_inputs(draft_steps=0, steps=20, sampler_name="dpmpp_sde") is True
    assert nodes["DBDPO_Rounds"].validate_inputs(draft_steps=6, steps=20, sampler_name="dpmpp_2m") is True
