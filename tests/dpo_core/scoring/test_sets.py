"""Scoring stage: one score per picture and fingerprint, computed in blocks of whole prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import FakeModel, Mean

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.records import Candidate
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.sampling.sets import sample_set
from dreambooth_dpo.dpo_core.scoring import sets as scoring
from dreambooth_dpo.dpo_core.scoring.sets import comparable, score_set
from dreambooth_dpo.dpo_core.settings import SamplingSettings

PROMPTS = ("a sks robot", "a sks robot in a café", "a sks robot at sea")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Three prompts with three candidates each; blocks of about four pictures."""
    monkeypatch.setattr(scoring, "BLOCK", 4)
    run = RunFolder(tmp_path)
    sample_set(run, "round_0", FakeModel(), PROMPTS, 3, SamplingSettings(steps=1, width=64, height=64), 0, 0)
    return run


def test_stored_scores_equal_the_scorers_values(run: RunFolder) -> None:
    """A block ends with the first prompt that reaches 4 pictures: two prompts (6), then one (3)."""
    red, blue = Mean("fidelity", 0), Mean("alignment", 2)
    told = []
    score_set(run, "round_0", [red, blue], lambda *a, **k: told.append(a[:3]))
    images = run.images("round_0")
    assert run.score_array("round_0", "fidelity").tolist() == pytest.approx(images[..., 0].mean((1, 2)) / 255)
    assert run.score_array("round_0", "alignment").tolist() == pytest.approx(images[..., 2].mean((1, 2)) / 255)
    assert red.calls == blue.calls == [6, 3]
    assert red.prompts == [[PROMPTS[0]] * 3 + [PROMPTS[1]] * 3, [PROMPTS[2]] * 3]
    assert told == [("score round_0", 1, 2), ("score round_0", 2, 2)]


def test_stored_scores_are_not_computed_again(run: RunFolder) -> None:
    score_set(run, "round_0", [Mean("fidelity", 0)])
    red, blue = Mean("fidelity", 0), Mean("alignment", 2)
    score_set(run, "round_0", [red, blue])
    assert (red.calls, blue.calls) == ([], [6, 3])


def test_a_changed_fingerprint_is_scored_again(run: RunFolder) -> None:
    score_set(run, "round_0", [Mean("fidelity", 0)])
    green = Mean("fidelity", 1, fingerprint="2")
    score_set(run, "round_0", [green])
    assert green.calls == [6, 3]
    assert len(run.scores("round_0", "fidelity", "2")) == 9 and run.scores("round_0", "fidelity", "1") == {}


def test_scores_of_a_changed_scorer_are_never_mixed_with_older_ones(run: RunFolder) -> None:
    """Neither within a set whose rescoring was interrupted, nor between two sets that are compared."""

    def interrupt(*_, **__) -> None:
        raise KeyboardInterrupt

    score_set(run, "round_0", [Mean("fidelity", 0)])
    with pytest.raises(KeyboardInterrupt):
        score_set(run, "round_0", [Mean("fidelity", 1, fingerprint="2")], interrupt)
    assert run.score_marks("round_0", "fidelity") == {"1", "2"}
    two = r"round_0 .*scores by two different scorers named 'fidelity': score the set again"
    with pytest.raises(UserError, match=two):
        run.score_array("round_0", "fidelity")
    score_set(run, "round_0", [Mean("fidelity", 1, fingerprint="2")])
    assert np.isfinite(run.score_array("round_0", "fidelity")).all()

    found = run.candidates("round_0")
    run.add_chunk("round_1", found, run.latents("round_0"), run.images("round_0"))
    score_set(run, "round_1", [Mean("fidelity", 1, fingerprint="2")])
    np.testing.assert_array_equal(*comparable(run, ["round_0", "round_1"], "fidelity"))
    score_set(run, "round_1", [Mean("fidelity", 1, fingerprint="3")])
    with pytest.raises(
        UserError, match=r"\(round_0, round_1\) were scored by two different scorers named 'fidelity': score all"
    ):
        comparable(run, ["round_0", "round_1"], "fidelity")


def test_an_interrupted_scoring_scores_the_missing_block_only(run: RunFolder) -> None:
    def interrupt(*_, **__) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_set(run, "round_0", [Mean("fidelity", 0)], interrupt)
    red = Mean("fidelity", 0)
    score_set(run, "round_0", [red])
    assert red.calls == [3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_refused(run: RunFolder, value: float) -> None:
    class Poisoned(Mean):
        def score(self, images, prompts):
            values = super().score(images, prompts)
            if len(values) == 3:
                values[1] = value
            return values

    with pytest.raises(UserError, match=rf"'fidelity' gave {value} for .*00007\.png.*Look at the picture"):
        score_set(run, "round_0", [Poisoned("fidelity", 0)])
    assert len(run.scores("round_0", "fidelity")) == 6


@settings(deadline=None)  # the first call includes lazy imports
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 12))
def test_blocks_hold_whole_prompts_and_every_picture_once(counts: list[int], size: int) -> None:
    prompt_of = np.repeat(np.arange(len(counts)), counts).tolist()
    candidates = [Candidate(i, p, str(p), i, 0, i) for i, p in enumerate(prompt_of)]
    before, scoring.BLOCK = scoring.BLOCK, size
    try:
        blocks = scoring._blocks(candidates)
    finally:
        scoring.BLOCK = before
    assert [c for block in blocks for c in block] == candidates
    sets = [{c.prompt_index for c in block} for block in blocks]
    assert sum(map(len, sets)) == len(counts)
    assert all(len(block) >= size for block in blocks[:-1])


class Bright(Mean):
    """Scores the red of the bright pictures only; those below the median of the call have no score."""

    unscored = "too dark"

    def score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        values = super().score(images, prompts)
        return np.where(values < np.median(values), np.nan, values)


def test_no_score_is_stored_as_such_and_not_asked_again(run: RunFolder) -> None:
    """Blocks of 6 and 3: 3 + 1 pictures are below the median. The scores table holds no null."""
    bright = Bright("fidelity_2", 0)
    score_set(run, "round_0", [bright])
    values = run.score_array("round_0", "fidelity_2")
    assert int(np.isnan(values).sum()) == 4 and len(run.scores("round_0", "fidelity_2", "1")) == 9
    score_set(run, "round_0", [bright])
    assert bright.calls == [6, 3]
    assert run.score_marks("round_0", "fidelity_2") == {"1"}
    score_set(run, "round_0", [Mean("fidelity_2", 0, fingerprint="2")])
    assert not np.isnan(run.score_array("round_0", "fidelity_2")).any()
    run.add_scores("round_0", "fidelity_2", "2", range(9), np.full(9, np.nan))
    assert np.isnan(run.score_array("round_0", "fidelity_2")).all()
    run.forget_set("round_0")
    assert run.scores("round_0", "fidelity_2") == {}


def test_only_a_scorer_that_says_so_may_give_no_score(run: RunFolder) -> None:
    class Silent(Bright):
        unscored = ""

    with pytest.raises(UserError, match="scorer 'fidelity_2' gave nan for"):
        score_set(run, "round_0", [Silent("fidelity_2", 0)])


def test_an_axis_has_a_score_where_all_its_scorers_have_one(run: RunFolder) -> None:
    """Prompt 0: 1 3 5 by the first scorer, and NaN 1 3 by the second: of the last two the deviations are -1 and 1.

    Both scorers agree, so in units of the first the axis is 3 and 5. The other prompts are 0 by both.
    """
    run.add_scores("round_0", "fidelity", "1", range(9), np.asarray([1, 3, 5] + [0] * 6, float))
    run.add_scores("round_0", "fidelity_2", "1", range(9), np.asarray([np.nan, 1, 3] + [0] * 6))
    found = scoring.axis_scores(run, "round_0", ["fidelity", "fidelity_2"], "mean")
    np.testing.assert_allclose(found, [np.nan, 3, 5] + [0] * 6)
    assert scoring.axis_scores(run, "round_0", ["fidelity"], "mean").tolist() == [1, 3, 5] + [0] * 6
