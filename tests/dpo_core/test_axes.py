"""Tests several scorers on an axis: names, combinations worked out by hand, and properties by hypothesis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from loops import PROMPTS, FakeModel, Mean, changed

from dreambooth_dpo.dpo_core.axes import axis_of, combine, in_units_of, names_of
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.loop.rounds import Loop
from dreambooth_dpo.dpo_core.pairs.build import build_pairs
from dreambooth_dpo.dpo_core.pairs.rules import PAIR_RULES
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.scoring.sets import axis_scores
from dreambooth_dpo.dpo_core.statistics import standardise
from dreambooth_dpo.dpo_core.training.adapter import Adapter

HOW = ("mean", "worst")


def test_names():
    assert [axis_of(n) for n in ("fidelity", "fidelity_2", "alignment_10")] == ["fidelity", "fidelity", "alignment"]
    for other in (
        "fidelity_1",
        "fidelity_02",
        "fidelity_0",
        "judge_fidelity",
        "fidelity_2b",
        "fidelity_2_3",
        "diversity",
        "",
    ):
        assert axis_of(other) is None, other
    names = ["alignment", "fidelity_10", "diversity", "fidelity", "judge_fidelity", "fidelity_2"]
    assert names_of("fidelity", names) == ("fidelity", "fidelity_2", "fidelity_10")
    assert names_of("alignment", names) == ("alignment",) and names_of("alignment", []) == ()


def test_combined_by_hand():
    """One prompt. 1 1 3 3 is -1 -1 1 1 in standard deviations, 0 40 0 40 is -1 1 -1 1.

    Their mean is -1 0 0 1, their minimum -1 -1 -1 1.
    """
    scores, prompt_of = [np.array([1.0, 1, 3, 3]), np.array([0.0, 40, 0, 40])], np.zeros(4, int)
    assert combine(scores, prompt_of, "mean").tolist() == [-1, 0, 0, 1]
    assert combine(scores, prompt_of, "worst").tolist() == [-1, -1, -1, 1]


def test_prompts_are_combined_around_their_own_means_by_hand():
    """Two prompts, 0 2 and 100 102: both are -1 1 in standard deviations, whatever their means.

    Combined with 6 4 6 4, which is 1 -1 1 -1, the mean is 0 everywhere.
    """
    scores, prompt_of = [np.array([0.0, 2, 100, 102]), np.array([6.0, 4, 6, 4])], np.array([7, 7, 3, 3])
    assert combine(scores, prompt_of, "mean").tolist() == [0, 0, 0, 0]
    assert combine(scores, prompt_of, "worst").tolist() == [-1, -1, -1, -1]


def test_constant_scorer_by_hand():
    """Constant scores are 0 in standard deviations: the mean is halved, and the minimum is never above 0."""
    scores, prompt_of = [np.array([1.0, 1, 3, 3]), np.full(4, 0.3)], np.zeros(4, int)
    assert combine(scores, prompt_of, "mean").tolist() == [-0.5, -0.5, 0.5, 0.5]
    assert combine(scores, prompt_of, "worst").tolist() == [-1, -1, 0, 0]


columns = st.integers(2, 8).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.integers(-50, 50), min_size=n, max_size=n), min_size=2, max_size=4),
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
    )
)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.sampled_from(HOW))
def test_scores_of_a_single_scorer_are_unchanged(values: list[float], how: str):
    found = combine([np.asarray(values)], np.zeros(len(values), int), how)
    assert found.dtype == np.float64 and found.tobytes() == np.asarray(values).tobytes()


@given(columns)
def test_mean_and_worst_are_of_the_standard_deviations(drawn: tuple):
    scores, prompt_of = np.asarray(drawn[0], float), np.asarray(drawn[1])
    standard = np.stack([standardise(s, prompt_of) for s in scores])
    mean, worst = (combine(scores, prompt_of, how) for how in HOW)
    np.testing.assert_allclose(mean, standard.mean(axis=0), atol=1e-12)
    assert (
        (worst <= mean + 1e-12).all() and (worst <= standard).all() and (worst[:, None] == standard.T).any(axis=1).all()
    )


@given(columns, st.sampled_from(HOW), st.sampled_from([0.25, 8.0]), st.integers(-9, 9))
def test_neither_scale_nor_offset_nor_order_of_the_scorers_matters(drawn: tuple, how: str, scale: float, offset: int):
    scores, prompt_of = np.asarray(drawn[0], float), np.asarray(drawn[1])
    moved = [scores[0] * scale + offset, *scores[1:]]
    found = combine(scores, prompt_of, how)
    np.testing.assert_allclose(combine(moved[::-1], prompt_of, how), found, atol=1e-9)


@given(columns, st.sampled_from(HOW))
def test_candidate_better_by_all_scorers_is_better_combined(drawn: tuple, how: str):
    scores, prompt_of = np.asarray(drawn[0], float), np.asarray(drawn[1])
    assume(len(set(prompt_of.tolist())) < len(prompt_of))
    found = combine(scores, prompt_of, how)
    better = (scores[:, :, None] > scores[:, None, :]).all(axis=0) & (prompt_of[:, None] == prompt_of)
    for winner, loser in zip(*np.nonzero(better), strict=True):
        assert found[winner] > found[loser]


def test_invalid_scores_are_refused():
    two, prompt_of = [np.zeros(3), np.zeros(3)], np.zeros(3, int)
    with pytest.raises(UserError, match="an axis has no scores: score the candidates"):
        combine([], prompt_of, "mean")
    with pytest.raises(UserError, match="combine is 'best': it must be mean or worst"):
        combine(two, prompt_of, "best")
    with pytest.raises(UserError, match="scorer 2 gave 2 scores for 3 candidates"):
        combine([np.zeros(3), np.zeros(2)], prompt_of, "mean")
    with pytest.raises(UserError, match="scorer 2 gave candidate 1 nan: look at the picture"):
        combine([np.zeros(3), np.array([0, np.nan, 0])], prompt_of, "worst")


def test_in_units_of_by_hand():
    """Two prompts: 1 1 3 3 and 6 6 6 6 have means 2 and 6, and spread sqrt(1/2), as half of eight values are 1 off.

    -1 2 0 0 | 0 0 1 -1 is scaled to these; cosines are clipped at 1.
    """
    first, prompt_of = np.array([1.0, 1, 3, 3, 6, 6, 6, 6]), np.repeat([0, 1], 4)
    found = in_units_of(first, np.array([-1.0, 2, 0, 0, 0, 0, 1, -1]), prompt_of)
    half = 0.5**0.5
    np.testing.assert_allclose(found, [2 - half, 2 + 2 * half, 2, 2, 6, 6, 6 + half, 6 - half])
    assert in_units_of(np.array([0.8, 1.0]), np.array([-9.0, 9.0]), np.zeros(2, int)).tolist() == pytest.approx(
        [0.0, 1.0]
    )
    assert in_units_of(np.full(3, 0.2), np.array([-1.0, 0, 1]), np.zeros(3, int)).tolist() == pytest.approx([0.2] * 3)


@given(columns, st.sampled_from(HOW))
def test_in_units_of_keeps_the_standard_deviations(drawn: tuple, how: str):
    scores, prompt_of = np.asarray(drawn[0], float) + 99, np.asarray(drawn[1])
    assume(standardise(scores[0], prompt_of).any())
    standard = combine(scores, prompt_of, how)
    assume(
        standardise(standard, prompt_of).any() and np.abs(standard).max() > 1e-6
    )  # less is what rounding leaves of opposites
    np.testing.assert_allclose(
        standardise(in_units_of(scores[0], standard, prompt_of), prompt_of), standardise(standard, prompt_of), atol=1e-6
    )


# --- in a run ---


def loop_of(folder: Path, rewards: list[Mean], **changes: object) -> Loop:
    settings, model = changed(rounds=1, **changes), FakeModel()
    return Loop(RunFolder(folder), model, Adapter(model.denoiser, settings.adapter), PROMPTS, rewards, [], settings)


def three() -> list[Mean]:
    return [Mean("fidelity", 0), Mean("alignment", 2), Mean("fidelity_2", 1)]


@pytest.mark.parametrize("how", HOW)
def test_a_round_pairs_by_all_scorers_of_an_axis(tmp_path: Path, how: str):
    loop = loop_of(tmp_path / "run", three(), pairs={"combine": how})
    loop.begin(0)
    loop.improve(0)
    run, prompt_of = loop.run, np.asarray([c.prompt_index for c in loop.run.candidates("round_0")])
    both = [run.score_array("round_0", name) for name in ("fidelity", "fidelity_2")]
    fidelity = in_units_of(both[0], combine(both, prompt_of, how), prompt_of)
    expected, _ = PAIR_RULES[loop.settings.pairs.rule](
        prompt_of, fidelity, run.score_array("round_0", "alignment"), loop.settings.pairs
    )
    assert run.pairs("round_0") == expected
    np.testing.assert_array_equal(axis_scores(run, "round_0", ("fidelity", "fidelity_2"), how), fidelity)
    alone = loop_of(tmp_path / "alone", three()[:2])
    alone.begin(0)
    alone.improve(0)
    assert alone.run.pairs("round_0") != expected
    assert build_pairs(run, "round_0", loop.settings.pairs, "again").kept == len(alone.run.pairs("round_0"))
    assert run.pairs("again") == alone.run.pairs("round_0")


def test_set_without_a_scorers_scores_is_refused(tmp_path: Path):
    loop = loop_of(tmp_path / "run", three()[:2])
    loop.candidates(0)
    with pytest.raises(
        UserError, match="candidate 0 of round_0 lacks a score by fidelity or fidelity_2: score the set first"
    ):
        build_pairs(loop.run, "round_0", loop.settings.pairs, "p", fidelity=("fidelity", "fidelity_2"))


def test_rewards_that_fit_no_axis_are_refused_before_anything_is_drawn(tmp_path: Path):
    with pytest.raises(UserError, match="reward scorer 'beauty' belongs to no axis: name it 'fidelity_2'"):
        loop_of(tmp_path / "a", [*three(), Mean("beauty", 1)])
    with pytest.raises(UserError, match=r"lack \['fidelity'\]"):
        loop_of(tmp_path / "b", three()[1:])
