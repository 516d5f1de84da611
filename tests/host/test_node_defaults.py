"""Widgets have the names, defaults and ranges of the engine's settings, or differ from them on purpose."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
from schemas import widget_of, widgets

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.prompts import split
from dreambooth_dpo.dpo_core.settings import (
    AdapterSettings,
    EvaluationSettings,
    LoopSettings,
    OwnPairSettings,
    PairSettings,
    PersonalizeSettings,
    PhotoSettings,
    SamplingSettings,
    StopSettings,
    TrainSettings,
    settings_of_widgets,
)
from dreambooth_dpo.toybox.defaults import TOY_PERSONALIZE, TOY_SETTINGS

SAMPLING = {
    "candidates_per_prompt": (SamplingSettings, "candidates_per_prompt"),
    "seed": (SamplingSettings, "seed"),
    "steps": (SamplingSettings, "steps"),
    "cfg": (SamplingSettings, "guidance"),
    "width": (SamplingSettings, "width"),
    "height": (SamplingSettings, "height"),
    "batch_size": (SamplingSettings, "batch_size"),
    "guidance_until": (SamplingSettings, "guidance_until"),
}
LIMITS = ("angle_low", "angle_high", "margin", "max_pairs_per_prompt", "max_uses")
PAIRS = {n: (PairSettings, n) for n in (*LIMITS, "rule", "window", "steer", "fidelity_weight", "combine")}
TRAINING = {
    "rank": (AdapterSettings, "rank"),
    "alpha": (AdapterSettings, "alpha"),
    "targets": (AdapterSettings, "targets"),
    "train_steps": (TrainSettings, "steps"),
    "pairs_per_step": (TrainSettings, "batch_size"),
    "accumulation": (TrainSettings, "accumulation"),
    "learning_rate": (TrainSettings, "learning_rate"),
    "beta": (TrainSettings, "beta"),
    "objective": (TrainSettings, "objective"),
    "loser_guard": (TrainSettings, "loser_guard"),
    "schedule": (TrainSettings, "schedule"),
    "memory": (TrainSettings, "memory"),
    "reference_bank": (TrainSettings, "reference_bank"),
    "auto_beta": (TrainSettings, "auto_beta"),
    "time_sampling": (TrainSettings, "time_sampling"),
    "time_shift": (TrainSettings, "time_shift"),
}
MEASURING = {"seeds_per_prompt": (EvaluationSettings, "seeds_per_prompt"), "seed": (EvaluationSettings, "seed")}
MEANINGS = {
    "DBDPO_LoadToybox": {"steps": (PersonalizeSettings, "steps")},
    "DBDPO_SampleCandidates": SAMPLING,
    "DBDPO_BuildPairs": PAIRS,
    "DBDPO_TrainStep": TRAINING,
    "DBDPO_Evaluate": MEASURING,
    "DBDPO_Strength": {
        "seed": (EvaluationSettings, "seed"),
        "seeds_per_prompt": (EvaluationSettings, "seeds_per_prompt"),
    },
    "DBDPO_CompareLoras": {
        **MEASURING,
        **{name: SAMPLING[name] for name in SAMPLING if name not in ("candidates_per_prompt", "seed")},
    },
    "DBDPO_KeepBest": {**MEASURING, "patience": (StopSettings, "patience")},
    "DBDPO_Rounds": {
        "rounds": (LoopSettings, "rounds"),
        **SAMPLING,
        **PAIRS,
        **TRAINING,
        "seeds_per_prompt": MEASURING["seeds_per_prompt"],
        "draft_steps": (SamplingSettings, "draft_steps"),
    },
    "DBDPO_OwnPairs": {"weight": (OwnPairSettings, "weight")},
    "DBDPO_SubjectPhotos": {name: (PhotoSettings, name) for name in ("held_out", "crop", "size")},
    "DBDPO_FinishCandidates": {"steps": (SamplingSettings, "steps")},
}
MEANT = [(node, widget) for node, names in MEANINGS.items() for widget in names]
AUTO = {
    **dict.fromkeys(("steps", "cfg", "width", "height", "rank", "alpha", "learning_rate", "beta", "time_shift"), 0),
    **dict.fromkeys(("targets", "auto_beta", "time_sampling"), "auto"),
}
"""Widgets whose default is the value of the model's family, and how they say so."""
DIFFERENT = {
    ("DBDPO_LoadToybox", "steps"): TOY_PERSONALIZE.steps,
    ("DBDPO_TrainStep", "loser_guard"): 0,
    ("DBDPO_Rounds", "loser_guard"): 0,
    **{(node, name): AUTO[name] for node, name in MEANT if name in AUTO and node != "DBDPO_LoadToybox"},
    **{
        (node, name): getattr(TOY_SETTINGS.pairs, name)
        for node in ("DBDPO_BuildPairs", "DBDPO_Rounds")
        for name in ("max_pairs_per_prompt", "max_uses")
    },
}
"""Defaults that differ from the engine's on purpose: the toybox is personalized as in its own settings; the engine
drives SD alone, the nodes every family; a number cannot be empty, so 0 turns the loser guard off; pairs per prompt and
uses are those that the loop was measured with on the toybox."""


@pytest.mark.parametrize(("node", "name"), MEANT)
def test_defaults_are_the_engines(nodes, node, name):
    kind, field = MEANINGS[node][name]
    engines, widgets_own = kind.model_fields[field].default, widget_of(nodes, node, name).default
    if (node, name) in DIFFERENT:
        assert widgets_own == DIFFERENT[node, name] != engines
    else:
        assert widgets_own == engines


@pytest.mark.parametrize(("node", "name"), MEANT)
def test_the_engine_takes_all_that_a_widget_offers(nodes, node, name):
    kind, field = MEANINGS[node][name]
    described, widget = kind.model_fields[field], widget_of(nodes, node, name)
    if getattr(widget, "options", None) is not None:
        assert set(widget.options) == set(get_args(described.annotation))
    # Where 0 is auto, values from there to the engine's least are refused by name (tests/nodes).
    auto = (node, name) in DIFFERENT and AUTO.get(name) == 0
    for limit in described.metadata if hasattr(widget, "min") and not auto else ():
        assert widget.min >= getattr(limit, "ge", widget.min) and widget.max <= getattr(limit, "le", widget.max)
        assert not hasattr(limit, "gt") or widget.min > limit.gt
        assert not hasattr(limit, "lt") or widget.max < limit.lt
        assert not hasattr(limit, "multiple_of") or widget.step == limit.multiple_of


def test_other_defaults_that_mean_the_same(nodes):
    assert (
        widget_of(nodes, "DBDPO_PromptSet", "held_out_share").default
        == inspect.signature(split).parameters["held_out_share"].default
    )


def test_a_value_between_auto_and_the_least_is_refused_by_its_widgets_name(comfyui):
    with pytest.raises(UserError, match=r"^cfg is 0.5: it must be a number from 1 to 30, or 0 for auto\.$"):
        settings_of_widgets(SamplingSettings, {"cfg": 0.5, "width": 0})
    assert settings_of_widgets(SamplingSettings, {"cfg": 0, "width": 0}).guidance is None


def test_the_strengths_are_the_engines(nodes):
    from dreambooth_dpo.dpo_core.evaluation.strength import read_strengths
    from dreambooth_dpo.dpo_core.settings import StrengthSettings

    assert read_strengths(widget_of(nodes, "DBDPO_Strength", "strengths").default) == StrengthSettings().strengths


def test_rounds_offers_the_widgets_of_its_parts(nodes):
    """DPO Rounds has the widgets of its nodes with equal defaults, ranges and tooltips, except `round`; and
    earlier_rounds: by hand, the link `earlier` says whether there are any.
    """
    whole = {w.id: w.as_dict() for w in widgets(nodes["DBDPO_Rounds"])}
    for part in ("DBDPO_SampleCandidates", "DBDPO_BuildPairs", "DBDPO_TrainStep"):
        for widget in widgets(nodes[part]):
            if widget.id == "round":
                continue
            if widget.id == "earlier_rounds":
                assert (whole.pop(widget.id)["default"], widget.default) == (0, 1)
                continue
            assert whole.pop(widget.id) == widget.as_dict(), f"{part}.{widget.id}"
    assert list(whole) == ["rounds", "keep", "seeds_per_prompt", "draft_steps", "own_pairs", "own_prompt", "own_weight"]
