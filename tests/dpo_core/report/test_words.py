"""Tests that one function words the verdict for node and report, and that a judge that fell is never ignored."""

from __future__ import annotations

import itertools

import pytest

from dreambooth_dpo.dpo_core.report.words import (
    QUALITY_FALL,
    SATURATION_RISE,
    answer,
    evaluation_words,
    moved,
    next_step,
    verdict,
)
from dreambooth_dpo.dpo_core.settings import StopSettings

ABOUT = {
    "fidelity": {"role": "reward", "title": "Fidelity", "higher_is_better": True},
    "alignment": {"role": "reward", "title": "Alignment", "higher_is_better": True},
    "judge_fidelity": {"role": "judge", "title": "Fidelity (judge)", "higher_is_better": True},
    "judge_alignment": {"role": "judge", "title": "Alignment (judge)", "higher_is_better": True},
    "copy_paste": {"role": "guard", "title": "Copy-paste", "higher_is_better": False},
}
CI = {"up": (0.05, 0.15), "down": (-0.15, -0.05), "unclear": (-0.05, 0.05)}


def gain(way: str) -> dict:
    low, high = CI[way]
    mean = (low + high) / 2
    return {
        "before": 0.4,
        "after": 0.4 + mean,
        "gain": mean,
        "ci95": [low, high],
        "images": 40,
        "prompts": 20,
        "verdict": way,
    }


def gains(*ways: str) -> dict[str, dict]:
    """Gains in the order of ABOUT, as many as `ways`."""
    return {name: gain(way) for name, way in zip(ABOUT, ways, strict=False)}


@pytest.mark.parametrize("judges", [("down", "up"), ("up", "down"), ("unclear", "down"), ("down", "down")])
def test_fallen_judge_on_either_axis_is_reported_as_hacked(judges: tuple[str, str]) -> None:
    numbers = gains("up", "up", *judges)
    assert verdict(numbers, ABOUT) == ("hacked", "The reward rose while the judge fell: looks hacked.")
    assert evaluation_words(numbers, ABOUT).splitlines()[0] == "The reward rose while the judge fell: looks hacked."


def test_a_gain_that_the_judge_does_not_see_is_said_in_the_headline() -> None:
    """Unless the truth is known to have risen."""
    numbers = gains("up", "up", "unclear", "up")
    said = "It got better: fidelity and alignment rose, but the judge shows no clear gain in fidelity."
    assert verdict(numbers, ABOUT) == ("better", said)
    assert verdict({**numbers, "oracle_all_right": gain("up")}, ABOUT)[1] == said.split(", but")[0] + "."
    assert "judge" not in verdict(gains("up", "unclear", "up", "unclear"), ABOUT)[1]


def test_a_gain_that_the_judge_sees_on_no_axis_is_the_scorers_alone() -> None:
    """Not where the truth is known; a judge of one axis is asked on that one."""
    both = gains("up", "up", "unclear", "unclear")
    said = "fidelity and alignment rose, but the judge shows no clear gain in fidelity and alignment."
    assert verdict(both, ABOUT) == ("unconfirmed", f"By the scorer alone it got better: {said}")
    assert next_step(both, ABOUT).startswith("Look at its pictures before you use it: only the scores")
    assert verdict({**both, "oracle_all_right": gain("up")}, ABOUT)[0] == "better"
    one = gains("up", "up", "unclear")
    assert verdict(one, ABOUT)[0] == "unconfirmed" and verdict(gains("up", "up", "up"), ABOUT)[0] == "better"
    assert verdict(gains("unclear", "up", "up", "unclear"), ABOUT)[0] == "unconfirmed"


def test_a_gain_that_no_judge_checked_is_said_to_be_one() -> None:
    """Not where the truth is known, and not of a loss."""
    assert verdict(gains("up", "unclear"), ABOUT)[1] == (
        "It got better: fidelity rose, alignment held, but no judge checked it."
    )
    assert "No judge checked it: look at its pictures" in next_step(gains("up", "up"), ABOUT)
    assert "judge" not in next_step(gains("up", "up", "up", "up"), ABOUT)
    known = {**gains("up", "up"), "oracle_all_right": gain("unclear")}
    assert "judge" not in verdict(known, ABOUT)[1] + verdict(gains("down", "unclear"), ABOUT)[1]


@pytest.mark.parametrize("ways", itertools.product(CI, repeat=4))
def test_the_nodes_first_line_is_the_reports_headline(ways: tuple[str, ...]) -> None:
    numbers = gains(*ways)
    said = evaluation_words(numbers, ABOUT).splitlines()[0]
    assert said == answer(numbers, ABOUT).headline
    rose = "up" in ways[:2] and "down" not in ways
    borne_out = any(reward == judge == "up" for reward, judge in zip(ways[:2], ways[2:], strict=True))
    assert said.startswith("It got better") == (rose and borne_out)
    assert said.startswith("By the scorer alone it got better") == (rose and not borne_out)


def test_every_scorer_has_a_line() -> None:
    lines = evaluation_words(gains("up", "unclear", "up", "unclear", "up"), ABOUT).splitlines()
    assert lines == [
        "It got better: fidelity rose, alignment held, but pictures copy the photos more.",
        "Use it at a lower strength (the strength sweep finds one), or keep an earlier round; then give masks or "
        "photos in several places and train again.",
        "40 held-out pictures of 20 prompts, equal seeds; 95 % intervals over prompts.",
        "Fidelity: 0.400 -> 0.500 (+0.100, 95 % interval +0.050 to +0.150): better",
        "Alignment: 0.400 -> 0.400 (+0.000, 95 % interval -0.050 to +0.050): no clear change",
        "Fidelity (judge): 0.400 -> 0.500 (+0.100, 95 % interval +0.050 to +0.150): better",
        "Alignment (judge): 0.400 -> 0.400 (+0.000, 95 % interval -0.050 to +0.050): no clear change",
        "Copy-paste: 0.400 -> 0.500 (+0.100, 95 % interval +0.050 to +0.150): worse",
    ]


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        (("up", "up"), "Use it at strength 1. No judge checked it"),
        (("up", "up", "up", "up"), "Use it at strength 1. A strength sweep"),
        (("up", "down"), "Lower fidelity_weight and train again"),
        (("down", "up"), "Raise fidelity_weight and train again"),
        (("down", "unclear"), "Use your original. Look at the pairs"),
        (("unclear", "unclear"), "Use your original: more rounds"),
        (("up", "up", "down"), "Look at the pictures before you use it."),
    ],
)
def test_each_verdict_says_what_to_do_next_on_node_and_report(ways: tuple[str, ...], said: str) -> None:
    numbers = gains(*ways)
    assert next_step(numbers, ABOUT).startswith(said)
    assert next_step(numbers, ABOUT) == evaluation_words(numbers, ABOUT).splitlines()[1]
    assert next_step(numbers, ABOUT) in answer(numbers, ABOUT).sentences


@pytest.mark.parametrize(("after", "alike"), [(2.0, False), (1.1, True)])
def test_only_a_loss_of_nearly_all_diversity_stands_in_the_verdict(after: float, alike: bool) -> None:
    """Of 2 above 1, 1 is left (half is lost), or 0.1 (95 % is lost: more than 85 %)."""
    about = {**ABOUT, "diversity": {"role": "guard", "title": "Diversity", "higher_is_better": True}}
    numbers = {**gains("up", "up"), "diversity": {**gain("down"), "before": 3.0, "after": after}}
    assert ("the pictures of a prompt became alike" in verdict(numbers, about)[1]) == alike


def test_small_gains_have_digits_that_show_something() -> None:
    small = {"gain": 0.0041, "ci95": [0.0009, 0.0072]}
    assert moved(small) == ("+0.0041", "+0.0009 to +0.0072")
    assert moved({"gain": 0.1, "ci95": [None, None]}) == ("+0.100", "")


def test_stronger_colours_are_a_failed_guard_beyond_their_limit() -> None:
    """The whole interval must lie above a tenth of the start's 0.3; a smaller rise is a line of its own."""
    about = ABOUT | {"saturation": {"role": "guard", "title": "Colour saturation", "higher_is_better": None}}
    for ci95, failed in (([0.031, 0.05], True), ([0.029, 0.05], False)):
        colours = gain("up") | {"before": 0.3, "after": 0.34, "gain": 0.04, "ci95": ci95}
        said = verdict(gains("up", "up", "up", "up") | {"saturation": colours}, about)[1]
        assert said == "It got better: fidelity and alignment rose" + (
            ", but the colours became more saturated." if failed else "."
        )
    assert StopSettings().saturation_rise == SATURATION_RISE


def test_lost_quality_is_a_failed_guard_beyond_its_limit() -> None:
    """The whole interval must lie below -0.4 logits; a smaller fall is a line of its own, not a failed guard."""
    about = ABOUT | {"quality": {"role": "guard", "title": "Quality", "higher_is_better": True}}
    for ci95, lost in (([-0.7, -0.5], True), ([-0.7, -0.3], False)):
        quality = gain("down") | {"before": 20.0, "after": 19.4, "gain": -0.6, "ci95": ci95}
        said = verdict(gains("up", "up", "up", "up") | {"quality": quality}, about)[1]
        assert said == "It got better: fidelity and alignment rose" + (
            ", but the pictures lost quality." if lost else "."
        )
    assert StopSettings().quality_fall == QUALITY_FALL
