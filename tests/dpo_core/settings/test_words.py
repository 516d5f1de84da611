"""Wrong values of settings, in the pack's words and by the widget's name."""

from __future__ import annotations

import math

import pytest

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.evaluation.strength import read_strengths
from dreambooth_dpo.dpo_core.settings import (
    AdapterSettings,
    EvaluationSettings,
    LoopSettings,
    PairSettings,
    SamplingSettings,
    StopSettings,
    StrengthSettings,
    TrainSettings,
    settings_of_widgets,
    widget_fields,
)
from dreambooth_dpo.dpo_core.settings.words import in_words, kind_of, one_of, requirement

KINDS = (
    AdapterSettings, EvaluationSettings, LoopSettings, PairSettings, SamplingSettings, StopSettings, StrengthSettings,
    TrainSettings,
)  # fmt: skip
ABSURD = ("x", 1e12, -1e12, math.nan, math.inf, True, [1], {"a": 1}, object())


@pytest.mark.parametrize("kind", KINDS)
def test_every_absurd_value_is_refused_by_the_widgets_name(kind: type) -> None:
    tried = 0
    for name, field, mark in widget_fields(kind):
        for value in ABSURD:
            if (isinstance(value, list) and name == "strengths") or (value is True and kind_of(field) is bool):
                continue
            with pytest.raises(UserError) as raised:
                settings_of_widgets(kind, {mark.name or name: value})
            said = str(raised.value)
            assert said.startswith(f"{mark.name or name} is ") and said.endswith("."), (name, value, said)
            assert not any(word in said.lower() for word in ("pydantic", "http", "should be", "object at 0x"))
            tried += 1
    assert tried


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": 0.5}, "steps is 0.5: it must be a whole number from 1 to 1000, or 0 for auto."),
        ({"width": 100}, "width is 100: it must be a whole number from 64 to 4096 that 8 divides, or 0 for auto."),
        ({"seed": -1}, "seed is -1: it must be a whole number from 0 to 2147483647."),
        ({"seed": True}, "seed is True: it must be a whole number from 0 to 2147483647."),
        (
            {"draft_steps": 20, "steps": 20},
            "draft_steps 20 must be below steps 20; a third of them is usual, 0 is off.",
        ),
    ],
)
def test_sentences(values: dict, said: str) -> None:
    with pytest.raises(UserError) as raised:
        settings_of_widgets(SamplingSettings, values)
    assert str(raised.value) == said


def test_options_are_listed_those_near_first() -> None:
    assert one_of(list("abc")) == "one of a, b, c"
    assert one_of([f"o{i}" for i in range(20)], "o1x", ["o19"]) == "one of o19, o0, o1, o2, o3, o4, o5, o6 and 12 more"


def test_values_in_words() -> None:
    assert [in_words(v) for v in (None, "x", 1.5, object())] == ["empty", "'x'", "1.5", "a object"]
    assert len(in_words("x" * 1000)) == 60


def test_requirements_of_fields() -> None:
    fields = PairSettings.model_fields
    assert requirement(fields["rule"]).startswith("one of angle_window, pareto, ")
    assert requirement(fields["margin"]) == "a number from 0 to 10"
    assert requirement(LoopSettings.model_fields["sweep"]) == "true or false"


@pytest.mark.parametrize("text", ["x", "1;2", "nan", "-1", "0", ", ".join(["1"] * 60), "1e400", "0.123"])
def test_texts_that_are_no_strengths(text: str) -> None:
    with pytest.raises(UserError) as raised:
        read_strengths(text)
    assert str(raised.value).startswith("strengths ") and "after validation" not in str(raised.value)
