"""Tests the ranking of LoRAs against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.evaluation.compare import WITHOUT, compare
from dreambooth_dpo.dpo_core.report.plots.compare import plane_figure, short_names
from dreambooth_dpo.dpo_core.report.plots.figure import figure_image
from dreambooth_dpo.dpo_core.report.ranking import ranking_rows, ranking_text
from dreambooth_dpo.dpo_core.settings import StopSettings

PROMPT_OF = np.repeat(np.arange(4), 2)
STOP = StopSettings()


def scores(fidelity: float, alignment: float, wobble: float = 0.0) -> dict[str, np.ndarray]:
    """Two pictures of each of four prompts: 0.5 and 0.7 (deviation 0.1 within prompts), and a shift on each axis.

    wobble: added to the fidelity of prompts 0 and 1, taken from that of 2 and 3.
    """
    base = np.tile([0.5, 0.7], 4)
    sign = np.repeat([1.0, 1.0, -1.0, -1.0], 2)
    return {"fidelity": base + fidelity + wobble * sign, "alignment": base + alignment}


def test_gains_ranks_and_front_by_hand():
    """+0.1 on fidelity is one standard deviation on that axis, 0.5 on both: gains 1.0, 0.5, 0 and -0.5.

    "both" (0.7, 0.7) is above all others on both means, so it alone is on the front.
    """
    given = {WITHOUT: scores(0, 0), "half": scores(0.1, 0), "both": scores(0.1, 0.1), "worse": scores(0, -0.1)}
    found = compare(given, PROMPT_OF, STOP, 200)
    assert [p.name for p in found.places] == ["both", "half", WITHOUT, "worse"]
    assert [round(p.gain.mean, 6) for p in found.places] == [1.0, 0.5, 0.0, -0.5]
    assert [round(p.behind.mean, 6) for p in found.places] == [0.0, 0.5, 1.0, 1.5]
    assert found.best == "both" and [p.front for p in found.places] == [True, False, False, False]
    assert not any(p.level for p in found.places)
    assert found.words.startswith("both is the best of 3: gain +1.00 standard deviations on held-out prompts")
    assert found.places[0].fidelity.mean == pytest.approx(0.7)


def test_what_prompts_cannot_tell_apart_is_said():
    """A wobble of 0.2 (2 SD of fidelity, 1 of the gain) around the same mean: the difference's interval holds 0."""
    given = {WITHOUT: scores(0, 0), "steady": scores(0.1, 0.1), "wobbly": scores(0.09, 0.1, wobble=0.2)}
    found = compare(given, PROMPT_OF, STOP, 500)
    wobbly = next(p for p in found.places if p.name == "wobbly")
    assert found.best == "steady" and wobbly.level
    assert "Cannot be told apart from it on these prompts: wobbly." in found.words


def test_where_nothing_is_better_the_model_itself_is_best():
    found = compare({WITHOUT: scores(0, 0), "a": scores(-0.1, 0)}, PROMPT_OF, STOP, 100)
    assert found.best == WITHOUT and found.words == "None of 1 LoRAs is shown to be better than the model without one."


def test_a_failed_guard_bars_the_first_place():
    """Copy-paste up by 0.5 in every picture: far above what is allowed."""
    flat = {"copy_paste": np.full(8, 0.2)}
    copier = {**scores(0.3, 0.1), "copy_paste": np.full(8, 0.7)}
    given = {WITHOUT: {**scores(0, 0), **flat}, "copier": copier, "honest": {**scores(0.1, 0.1), **flat}}
    found = compare(given, PROMPT_OF, STOP, 100)
    assert found.places[0].name == "copier" and found.best == "honest"
    assert "copier has a higher gain, but pictures copy the photos more" in found.words


def test_the_plane_shows_every_place():
    found = compare({WITHOUT: scores(0, 0), "a": scores(0.1, 0.1)}, PROMPT_OF, STOP, 100)
    figure = plane_figure(found)
    assert {text.get_text() for text in figure.axes[0].texts} == {"1", "2"}
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["1  a: +1.00", f"2  {WITHOUT}: +0.00"]
    assert figure_image(figure).width == 1024


def test_names_on_the_sheet_are_without_what_all_begin_with():
    assert short_names(["my_cat-02", "my_cat-10"]) == {"my_cat-02": "02", "my_cat-10": "10"}
    assert short_names(["my_cat-02"]) == {"my_cat-02": "my_cat-02"}
    assert short_names(["anna", "annb"]) == {"anna": "anna", "annb": "annb"}
    assert short_names(["my_cat-", "my_cat-10"]) == {"my_cat-": "my_cat-", "my_cat-10": "10"}


def test_the_ranking_in_words_by_hand():
    """Gain of "good" 1.0 without spread over prompts; "even" 0.95 with a wobble, so it cannot be told apart."""
    flat = {"copy_paste": np.full(8, 0.2)}
    given = {
        WITHOUT: {**scores(0, 0), **flat}, "good": {**scores(0.1, 0.1), **flat},
        "even": {**scores(0.09, 0.1, wobble=0.2), **flat},
        "copier": {**scores(-0.1, 0), "copy_paste": np.full(8, 0.7)},
    }  # fmt: skip
    found = compare(given, PROMPT_OF, STOP, 300)
    rows = ranking_rows(found)
    assert [row[:2] for row in rows] == [("1 *", "good"), ("2 =", "even"), ("3", WITHOUT), ("4", "copier")]
    assert rows[0][2:5] == ("0.700", "0.700", "+1.000") and [row[-1] for row in rows] == [*["held"] * 3, "failed"]
    lines = ranking_text(found, "Measured so.").split("\n")
    assert lines[:2] == [found.words, "Measured so."]
    assert lines[2].startswith("1 *  good: gain +1.000 (") and ", fidelity 0.700, alignment 0.700" in lines[2]
    assert lines[4] == f"3  {WITHOUT}: the model itself, fidelity 0.600, alignment 0.600"
    assert lines[5].endswith("; a guard failed") and lines[6].startswith("= cannot be told apart")
    assert lines[7].startswith("copier: pictures copy the photos more")
