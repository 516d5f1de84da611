"""Variety of candidates: composition of latents, near pairs, and contributions, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loops import changed, make_loop
from pydantic import ValidationError

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.pairs.rules import angle_window_pairs, lambda_harmonic_pairs, weighted_sum_pairs
from dreambooth_dpo.dpo_core.pairs.variety import better_half, composition, contributions, nearest_pairs
from dreambooth_dpo.dpo_core.settings import (
    LoopSettings,
    PairSettings,
    SamplingSettings,
    TrainSettings,
    too_few_to_vary,
)

LINE = np.array([[0.0], [1.0], [3.0]])
"""Three candidates on a line; their distances are 1, 2 and 3."""


def test_composition_by_hand():
    """8 x 8 latents of two halves: -1 left and 1 right, and the reverse. Cells are means of 2 x 2; mean 0, spread 1.

    The second channel is constant and says nothing; checkerboards of single pixels average out.
    """
    halves = np.where(np.arange(8) < 4, -1.0, 1.0) * np.ones((8, 1))
    fine = np.indices((8, 8)).sum(0) % 2 * 2.0 - 1
    latents = np.stack([np.stack([sign * halves + 5 * fine, np.full((8, 8), 3.0)]) for sign in (1, -1)])
    found = composition(latents)
    assert found.shape == (2, 32)
    assert found[0, :16].reshape(4, 4)[0].tolist() == [-1, -1, 1, 1] and (found[0] == -found[1]).all()
    assert not found[:, 16:].any()
    assert composition(latents[:, :, None]).tolist() == found.tolist()  # one frame of a video model


def test_composition_of_sides_that_four_does_not_divide():
    """5 columns make cells of 2, 1, 1 and 1; 3 rows make three."""
    assert composition(np.random.default_rng(0).normal(size=(2, 1, 3, 5))).shape == (2, 12)


def test_nearest_pairs_by_hand():
    """Distances 1 (0-1), 2 (1-2) and 3 (0-2): of three pairs, half rounded up is two; the least is always near."""
    first, second = np.array([0, 1, 0, 2]), np.array([1, 2, 2, 0])
    assert nearest_pairs(LINE, first, second, 0.5).tolist() == [True, True, False, False]
    assert nearest_pairs(LINE, first, second, 0.01).tolist() == [True, False, False, False]
    assert nearest_pairs(LINE, first, second, 0.99).tolist() == [True] * 4


def test_contributions_by_hand():
    """Places 0, 0, 3: variety 2; without the last 0, without a first 3. Two candidates of a prompt give 0."""
    features = np.array([[0.0], [7.0], [0.0], [3.0], [9.0]])
    assert contributions(features, np.array([0, 1, 0, 0, 1])).tolist() == pytest.approx([-1, 0, -1, 2, 0])


def test_matched_pairs_leave_out_distant_ones():
    """Fidelity 0, 1, 2 at places 0, 1, 3: 2 over 0 is the longest, but they are the furthest apart."""
    prompt_of, scores = np.zeros(3, int), np.array([0.0, 1.0, 2.0])
    settings = PairSettings(rule="angle_window", angle_low=-10, angle_high=100, margin=0.0)
    pairs, _ = angle_window_pairs(prompt_of, scores, scores, settings)
    assert {(p.winner, p.loser) for p in pairs} == {(2, 0), (2, 1), (1, 0)}
    near = settings.model_copy(update={"matched": 0.5})
    pairs, found = angle_window_pairs(prompt_of, scores, scores, near, LINE)
    assert {(p.winner, p.loser) for p in pairs} == {(2, 1), (1, 0)}
    assert (found.not_near, found.not_better, found.kept) == (1, 0, 2)
    assert "1 not near in composition, 0 below the margin" in found.sentence()
    with pytest.raises(UserError, match="matched needs the candidates' latents"):
        angle_window_pairs(prompt_of, scores, scores, near)


def test_diversity_prefers_the_good_candidate_that_is_different():
    """Of the better half (0, 1, 2) 0 and 1 are alike and 2 is different; all have nearly the same scores, 0 the best.

    Without diversity 0 beats 2; with it 2 beats 0 and 1. Candidate 3 is worst and differs most: it gains nothing.
    """
    layout, scores = np.array([[0.0], [0.0], [3.0], [90.0], [1.0]]), np.array([0.3, 0.28, 0.29, -0.4, -0.38])
    for rule, name in ((weighted_sum_pairs, "weighted_sum"), (lambda_harmonic_pairs, "lambda_harmonic")):
        settings = PairSettings(rule=name, margin=0.0, max_pairs_per_prompt=10, max_uses=10)
        plain, _ = rule(np.zeros(5, int), scores, scores, settings)
        assert (0, 2) in {(p.winner, p.loser) for p in plain}
        varied, _ = rule(np.zeros(5, int), scores, scores, settings.model_copy(update={"diversity": 1.0}), layout)
        better = {(p.winner, p.loser) for p in varied}
        assert {(2, 0), (2, 1), (4, 3)} <= better and not {pair for pair in better if pair[0] == 3}


def test_the_better_half_by_hand():
    """Median 2 of 1, 2, 3: two are in it. Of 1, 2, 3, 4 it is 2.5: two."""
    reward, prompt_of = np.array([1.0, 2, 3, 1, 2, 3, 4]), np.array([0, 0, 0, 1, 1, 1, 1])
    assert better_half(reward, prompt_of).tolist() == [False, True, True, False, False, True, True]


def test_pairs_of_a_run_see_its_latents(tmp_path: Path):
    """Half of each prompt's six pairs may be pairs; the rule's other pairs are counted."""
    pairs = {"rule": "lambda_harmonic", "margin": 0.0, "matched": 0.5}
    loop = make_loop(tmp_path / "run", settings=changed(pairs=pairs))
    loop.begin(0)
    loop.candidates(0)
    loop.pair(0)
    layout = composition(loop.run.latents("round_0").numpy())
    found = loop.run.pairs("round_0")
    assert loop.run.fact("yield_round_0")["not_near"] == 9 and found
    for pair in found:
        members = range(pair.winner // 4 * 4, pair.winner // 4 * 4 + 4)
        apart = sorted(np.linalg.norm(layout[i] - layout[j]) for i in members for j in members if i < j)
        assert np.linalg.norm(layout[pair.winner] - layout[pair.loser]) <= apart[2]


def test_diversity_needs_five_candidates_of_a_prompt(tmp_path: Path):
    """Of four the better half are two, which are equally different: refused with the settings. Where fewer are left, of
    drafts or without a score, the pairs are those of the plain reward.
    """
    scores, layout = np.array([0.1, 0.2, 0.3, 0.4]), np.arange(4.0)[:, None]
    varied, plain = (PairSettings(rule="weighted_sum", diversity=d) for d in (0.5, 0.0))
    left = [weighted_sum_pairs(np.zeros(4, int), scores, scores, s, layout)[0] for s in (varied, plain)]
    assert left[0] == left[1] and left[0]
    with pytest.raises(ValidationError, match="and candidates_per_prompt is 4"):
        LoopSettings(pairs=varied, sampling=SamplingSettings(candidates_per_prompt=4))
    assert LoopSettings(pairs=varied, sampling=SamplingSettings(candidates_per_prompt=5)).pairs.diversity == 0.5
    assert too_few_to_vary(0.0, 2) == too_few_to_vary(0.5, 5) == ""


@pytest.mark.parametrize(
    ("train", "named"),
    [({"objective": "reward_gap"}, "objective reward_gap"), ({"margin_weight": 1.0}, "margin_weight")],
)
def test_what_learns_from_the_scores_difference_takes_no_pairs_for_variety(train, named):
    with pytest.raises(ValidationError, match=f"{named} does not go with diversity 0.5"):
        LoopSettings(pairs=PairSettings(diversity=0.5), train=TrainSettings(**train))


def test_drafts_leave_few_candidates_and_the_loop_goes_on(tmp_path: Path):
    """Of 8 drafts of a prompt 4 are in pairs and finished, too few for variety to count among them."""
    settings = changed(
        sampling={"candidates_per_prompt": 8, "steps": 4, "draft_steps": 2},
        pairs={"rule": "weighted_sum", "margin": 0.0, "diversity": 0.5, "max_pairs_per_prompt": 2, "max_uses": 1},
    )
    loop = make_loop(tmp_path / "run", settings=settings)
    loop.begin(0)
    loop.candidates(0)
    loop.pair(0)
    assert len(loop.run.candidates("round_0")) == 12 and loop.run.pairs("round_0")


def test_settings_of_variety():
    assert {"matched", "diversity"}.isdisjoint(PairSettings().described())
    assert PairSettings(matched=0.5).described()["matched"] == 0.5
    with pytest.raises(ValidationError, match="diversity 1 does not go with rule pareto"):
        PairSettings(rule="pareto", diversity=1.0)
