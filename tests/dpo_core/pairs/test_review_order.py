"""Distances of pairs from the boundary of the rule, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.pairs.edits import pair_id
from dreambooth_dpo.dpo_core.pairs.review_order import boundary_distance
from dreambooth_dpo.dpo_core.pairs.rules import PAIR_RULES, reward_of
from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.dpo_core.settings import PairSettings


def near(
    pairs: list[Pair],
    rule: str = "angle_window",
    window=(20.0, 70.0),
    margin: float = 0.5,
    scores=((0.0,) * 6, (0.0,) * 6),
) -> list[float]:
    settings = PairSettings(rule=rule, margin=margin, angle_low=20, angle_high=70)
    return boundary_distance(pairs, settings, window, np.zeros(6, int), *(np.asarray(s, float) for s in scores))


def at(angle: float, length: float) -> Pair:
    return Pair(0, 1, length * float(np.cos(np.radians(angle))), length * float(np.sin(np.radians(angle))))


def test_distance_to_the_window_by_hand():
    """At 45 degrees both ends are 25 degrees away: r sin 25. At 30: r sin 10. A short pair is nearer to the margin."""
    found = near([at(45, 2), at(30, 2), at(45, 0.6), at(70, 3)])
    assert found == pytest.approx(
        [1.5 if 2 * np.sin(np.radians(25)) > 1.5 else 2 * np.sin(np.radians(25)), 2 * np.sin(np.radians(10)), 0.1, 0],
        abs=1e-9,
    )


def test_far_outside_the_window_the_distance_is_the_length():
    assert near([at(-135, 2)]) == pytest.approx([1.5])  # 1.5 is the distance to the margin, the smaller of the two
    assert near([at(-135, 2)], margin=0) == pytest.approx([2.0])


def test_reward_rules_use_the_distance_to_the_margin():
    scores = ((0.0, 1.0, 3.0, 0.0, 0.0, 0.0), (0.0,) * 6)
    spread = np.std(scores[0])
    found = near([Pair(1, 0, 0, 0), Pair(2, 0, 0, 0)], "weighted_sum", None, scores=scores)
    assert found == pytest.approx([abs(1 / spread - 0.5), 3 / spread - 0.5])


def test_pareto_uses_the_length_and_random_has_no_boundary():
    assert near([at(45, 2), at(0, 0.5)], "pareto", None) == pytest.approx([1.5, 0])
    assert near([at(45, 2), at(0, 0.5)], "random", None) == [0.0, 0.0]


@pytest.mark.parametrize("rule", sorted(set(PAIR_RULES) - {"random"}))
def test_raising_the_margin_by_the_distance_removes_the_pair(rule: str):
    """A margin raised by slightly more than a pair's distance to the boundary excludes the pair."""
    rng = np.random.default_rng(3)
    scores, prompt_of = rng.uniform(-0.9, 0.9, (2, 12)), np.repeat([0, 1, 2], 4)
    settings = PairSettings(rule=rule, margin=0.2, angle_low=-90, angle_high=180, max_pairs_per_prompt=99, max_uses=99)
    pairs, found = PAIR_RULES[rule](prompt_of, *scores, settings)
    apart = boundary_distance(pairs, settings, found.window, prompt_of, *scores)
    assert min(apart) >= 0
    i = int(np.argmin(apart))
    raised = settings.model_copy(update={"margin": 0.2 + apart[i] + 1e-6})
    left, _ = PAIR_RULES[rule](prompt_of, *scores, raised)
    assert pair_id(pairs[i]) not in {pair_id(p) for p in left}


def test_with_diversity_it_is_the_reward_with_the_variety_and_needs_the_layout():
    """The last candidate has no score, so the layout is that of the five others."""
    rng = np.random.default_rng(0)
    scores, layout = rng.uniform(-0.5, 0.5, (2, 6)), rng.normal(size=(5, 3))
    scores[:, 5] = np.nan
    settings, prompt_of = PairSettings(rule="weighted_sum", margin=0.1, diversity=0.7), np.zeros(6, int)
    reward = reward_of(prompt_of[:5], *scores[:, :5], settings, layout)
    found = boundary_distance([Pair(0, 1, 0, 0)], settings, None, prompt_of, *scores, layout)
    assert found == pytest.approx([abs(abs(reward[0] - reward[1]) - 0.1)])
    with pytest.raises(UserError, match="diversity needs the candidates' latents"):
        boundary_distance([Pair(0, 1, 0, 0)], settings, None, prompt_of, *scores)
