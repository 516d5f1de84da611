"""Widgets added after graphs were saved: they come last, and graphs without them keep their meaning."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from schemas import widgets
from toy_graphs import PAIRS, SAMPLING, TRAINING

from dreambooth_dpo.dpo_core.settings import PairSettings, SamplingSettings, TrainSettings, settings_of_widgets

pytestmark = pytest.mark.usefixtures("comfyui")

DRAWING = [
    "candidates_per_prompt", "seed", "steps", "cfg", "sampler_name", "scheduler", "width", "height", "batch_size",
    "negative",
]  # fmt: skip
LEARNING = [
    "rank", "alpha", "targets", "train_steps", "pairs_per_step", "accumulation", "learning_rate", "beta",
    "checkpointing", "train_seed",
    "objective", "loser_guard", "schedule",
]  # fmt: skip
PAIRING = [
    "angle_low", "angle_high", "margin", "max_pairs_per_prompt", "max_uses", "rule", "window", "steer",
    "fidelity_weight",
]  # fmt: skip
SAVED = {
    "DBDPO_SampleCandidates": ["run_name", *DRAWING],
    "DBDPO_TrainStep": [*LEARNING, "memory"],
    "DBDPO_Rounds": [
        "rounds",
        "run_name",
        *DRAWING,
        *PAIRING,
        *LEARNING,
        "combine",
        "keep",
        "seeds_per_prompt",
        "memory",
    ],
}
"""Widgets in the order in which graphs hold their values."""
POOL = ["lora_spread", "base_candidates", "photo_candidates"]
FEW_STEPS = ["candidate_lora", "candidate_lora_strength", "candidate_steps", "candidate_cfg"]
YOUNGER = {
    "DBDPO_SampleCandidates": ["guidance_until", "round", *POOL, *FEW_STEPS, "earlier_rounds"],
    "DBDPO_TrainStep": ["reference_bank", "round"],
    "DBDPO_Rounds": ["reference_bank", "guidance_until", "draft_steps"],  # then those of training, and POOL
}


def in_the_front_ends_order(node: type) -> list[str]:
    """Required inputs before optional ones."""
    return [w.id for optional in (False, True) for w in widgets(node) if bool(w.optional) == optional]


@pytest.mark.parametrize("node", SAVED)
def test_saved_values_stay_those_of_their_widgets(nodes, node):
    found = in_the_front_ends_order(nodes[node])
    required = [w.id for w in widgets(nodes[node]) if not w.optional]
    former = [w for w in SAVED[node] if w in required] + [w for w in SAVED[node] if w not in required]
    known = former + YOUNGER[node]
    assert found[: len(known)] == known
    assert all(w.optional for w in widgets(nodes[node]) if w.id not in former)


BEGINNER = {
    "DBDPO_SampleCandidates": ["run_name", "candidates_per_prompt", "steps", "cfg", "width", "height"],
    "DBDPO_TrainStep": ["train_steps"],
    "DBDPO_Rounds": [
        "rounds", "run_name", "candidates_per_prompt", "steps", "cfg", "width", "height", "angle_low", "angle_high",
        "train_steps", "rule", "window", "steer", "fidelity_weight",
    ],
}  # fmt: skip
"""Widgets that are not advanced. With the default rule, the window's four are hidden too: they have USED_WITH."""


@pytest.mark.parametrize("node", BEGINNER)
def test_widgets_that_a_beginner_does_not_need_are_advanced(nodes, node):
    found = nodes[node].INPUT_TYPES()
    shown = {**found["required"], **found["optional"]}
    plain = [n for n in shown if n in {w.id for w in widgets(nodes[node])} and not shown[n][1].get("advanced")]
    assert plain == BEGINNER[node]
    assert not {*POOL, *FEW_STEPS}.intersection(plain)


def test_the_youngest_widgets_come_after_all_others(nodes):
    """Those of few steps, then diversity, then earlier_rounds; where one of them is not there, the others move up."""
    youngest = [*FEW_STEPS, "diversity", "earlier_rounds"]
    assert in_the_front_ends_order(nodes["DBDPO_Rounds"])[-len(youngest) :] == youngest
    assert in_the_front_ends_order(nodes["DBDPO_BuildPairs"])[-2:] == ["combine", "diversity"]


def test_diversity_counts_only_with_a_rule_that_has_a_reward(nodes):
    """It is hidden beside other rules, which the engine refuses it with: a value that stayed there is no mistake."""
    values = {"diversity": 0.5, "rule": "pareto"}
    assert settings_of_widgets(PairSettings, values).diversity == 0
    assert settings_of_widgets(PairSettings, values | {"rule": "weighted_sum"}).diversity == 0.5
    assert settings_of_widgets(PairSettings, {"rule": "weighted_sum"}).diversity == 0


def test_what_the_default_rule_does_not_use_is_marked(nodes):
    shown = nodes["DBDPO_Rounds"].INPUT_TYPES()
    inputs = shown["required"] | shown["optional"]
    used = {name: options.get("dbdpo_used_with") for name, (_, options) in inputs.items()}
    assert used["angle_low"] == used["angle_high"] == {"rule": ["angle_window"], "window": ["fixed"]}
    assert used["steer"] == {"rule": ["angle_window"], "window": ["auto"]}
    assert used["fidelity_weight"] == {"rule": ["lambda_harmonic", "weighted_sum"]}
    rules = nodes["DBDPO_BuildPairs"].INPUT_TYPES()["optional"]["rule"][1]
    assert all(set(given.get("rule", [])) <= set(rules["options"]) for given in used.values() if given)


@pytest.mark.parametrize("given", [{}, {"guidance_until": None}, {"guidance_until": 1.0}])
def test_candidates_without_the_widget_keep_their_name(given):
    """The set's name is a hash of the settings."""
    from dreambooth_dpo.nodes.stages.sample import sampling_of

    settings, _ = sampling_of({**SAMPLING, **given})
    assert settings.guidance_until == 1 and "guidance_until" not in settings.described()


@pytest.mark.parametrize("until", [0.0, 0.4])
def test_guidance_until_reaches_the_engine(until):
    from dreambooth_dpo.nodes.stages.sample import sampling_of

    settings, _ = sampling_of({**SAMPLING, "cfg": 4.0, "steps": 10, "guidance_until": until, "batch_size": 0})
    assert settings.guided_steps == round(10 * until) and settings.described()["guidance_until"] == until
    assert settings.chunk_size == 16 and SamplingSettings().chunk_size == 8


@pytest.mark.parametrize("given", [{}, {"reference_bank": None}, {"reference_bank": 0}])
def test_a_training_without_the_widget_keeps_its_name(given):
    """The training folder's name is a hash of the settings."""
    from dreambooth_dpo.nodes.stages.train import settings_of

    settings = settings_of({**TRAINING, **given})[1]
    before = {"steps": 8, "batch_size": 4, "learning_rate": 1e-4, "beta": 2000.0, "schedule": "constant"}
    assert settings.model_dump() == TrainSettings(**before).model_dump() and settings.reference_bank == 0
    assert settings_of({**TRAINING, "reference_bank": 3})[1].reference_bank == 3


def test_rounds_passes_on_only_the_widgets_that_a_graph_has(comfyui: Path):
    """One more value on an inner node would change the key of the host's cache."""
    from dreambooth_dpo.nodes.schema.rounds import Rounds

    links = {name: [name, 0] for name in ("model", "clip", "vae", "concept", "prompts", "scorer")}

    def inner(kind: str, **given: object) -> list[dict]:
        graph = Rounds.execute(**links, rounds=2, run_name="x", **SAMPLING, **PAIRS, **TRAINING, **given).expand
        return [n["inputs"] for n in graph.values() if n["class_type"] == kind]

    for kind, taken in (("DBDPO_SampleCandidates", SAMPLING), ("DBDPO_TrainStep", TRAINING)):
        for number, inputs in enumerate(inner(kind)):
            own = {k for k, v in inputs.items() if not isinstance(v, list)} - {"run_name"}
            assert own == {*taken, *(["round"] if number else [])}, kind
            assert inputs.get("round", 0) == number
            assert all(inputs[name] == taken[name] for name in ("seed", "train_seed") if name in taken), (
                "the round tells them apart"
            )
    for inputs in inner("DBDPO_SampleCandidates", guidance_until=0.0, reference_bank=2):
        assert inputs["guidance_until"] == 0.0 and "reference_bank" not in inputs
    for inputs in inner("DBDPO_TrainStep", guidance_until=0.0, reference_bank=2):
        assert inputs["reference_bank"] == 2 and "guidance_until" not in inputs


def test_the_node_accepts_guidance_until(nodes, monkeypatch):
    """execute() of Sample Candidates, without sampling."""
    node = nodes["DBDPO_SampleCandidates"]
    stages = import_module(node.__module__.replace(".schema.", ".stages."))
    seen = []

    def stop(model, clip, vae, handle, progress, lora):
        seen.append(handle.settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "draw_candidates", stop)
    monkeypatch.setattr(node, "hidden", type("Hidden", (), {"unique_id": "1"}), raising=False)
    for given in ({}, {"guidance_until": 0.25}):
        with pytest.raises(KeyboardInterrupt):
            node.execute(None, None, None, None, None, "x", **SAMPLING, **given)
    assert [s.guidance_until for s in seen] == [1.0, 0.25]
