"""Wrong values of widgets: refused by the widget's name, in the pack's words, by a link as by the page."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from schemas import widgets

ABSURD = (None, "abc", "", 1e12, -1e12, math.nan, math.inf, True, [1], {"a": 1}, object())
RIGHT = {"DBDPO_LoadScorer": {"scorer": "toybox reward"}}
"""Values of widgets that have no default."""


def wrong_for(widget) -> list:
    """The absurd values that this widget must refuse."""
    kind = widget.get_io_type()
    if kind == "BOOLEAN":
        values = [v for v in ABSURD if v is not True]
    elif kind == "STRING":
        values = [v for v in ABSURD if not isinstance(v, str)]
    else:
        values = list(ABSURD)
    return [v for v in values if not (v is None and widget.optional)]


def said_of(call, **values) -> str:
    """What is said of the values: the text of validate_inputs, or the message of a refusal."""
    try:
        answer = call(**values)
    except Exception as error:
        # The pack's own import: its classes are not those of `dreambooth_dpo`.
        assert type(error).__name__ in ("UserError", "MetricsError"), repr(error)
        return str(error)
    return answer if isinstance(answer, str) else ""


def test_every_widget_of_every_node_refuses_absurd_values_by_its_name(nodes, monkeypatch):
    tried = 0
    for name, node in nodes.items():
        monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id="1", extra_pnginfo=None))
        right = {i.id: getattr(i, "default", object()) for i in node.GET_SCHEMA().inputs} | RIGHT.get(name, {})
        for widget in widgets(node):
            for value in wrong_for(widget):
                said = said_of(node.execute, **right | {widget.id: value})
                assert said.startswith((f"{widget.id} is ", f"{widget.id} ")), (name, widget.id, value, said)
                assert not any(word in said.lower() for word in ("pydantic", "traceback", "http")), said
                tried += 1
    assert tried > 900


def test_the_door_refuses_what_it_names_alike(nodes):
    tried = 0
    for name, node in nodes.items():
        if "validate_inputs" not in node.__dict__:
            continue
        for widget in widgets(node):
            if widget.id not in node.validate_inputs.__func__.__wrapped__.__code__.co_varnames[1:]:
                continue
            for value in wrong_for(widget):
                if value is None:  # linked: not known yet
                    assert node.validate_inputs(**{widget.id: None}) is True
                    continue
                said = said_of(node.validate_inputs, **{widget.id: value})
                assert said.startswith(f"{widget.id} "), (name, widget.id, value, said)
                tried += 1
    assert tried > 60


@pytest.mark.parametrize(
    ("node", "values", "said"),
    [
        ("DBDPO_BuildPairs", {"angle_low": "x"}, "angle_low is 'x': it must be a number from -90 to 180."),
        ("DBDPO_BuildPairs", {"angle_high": 1000}, "angle_high is 1000: it must be a number from -90 to 180."),
        ("DBDPO_Rounds", {"steps": 20.5}, "steps is 20.5: it must be a whole number from 0 to 1000."),
        ("DBDPO_Rounds", {"angle_low": 80, "angle_high": 30}, "angle_low 80 must be below angle_high 30; the paper's"),
    ],
)
def test_sentences_of_the_door(nodes, node: str, values: dict, said: str):
    assert nodes[node].validate_inputs(**values).startswith(said)


def test_an_unknown_sampler_by_a_link_names_those_that_are_near(nodes):
    """0.3.64 does not compare linked values with the options."""
    from dreambooth_dpo.dpo_core.backends.comfyui import host

    right = {i.id: getattr(i, "default", None) for i in nodes["DBDPO_SampleCandidates"].GET_SCHEMA().inputs}
    said = said_of(nodes["DBDPO_SampleCandidates"].execute, **right | {"sampler_name": "eulr"})
    assert said.startswith("sampler_name is 'eulr': it must be one of euler, ")
    assert said.endswith(f" and {len(host.sampler_names()) + 1 - 8} more.")


def test_numbers_written_as_text_or_with_a_point_count_as_the_widgets_type(nodes):
    from dreambooth_dpo.nodes.values import settled

    found = settled(nodes["DBDPO_Rounds"], {"steps": 20.0, "rounds": "3", "angle_low": "20", "checkpointing": 1})
    assert found == {"steps": 20, "rounds": 3, "angle_low": 20.0, "checkpointing": True}
    assert [type(v) for v in found.values()] == [int, int, float, bool]
