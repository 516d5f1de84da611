"""What rows that use candidates of rounds before spend, worked out by hand."""

from __future__ import annotations

from dreambooth_dpo.benchmarks.methods.cheaper import AGAIN, DISTILLED, MORE_ROUNDS
from dreambooth_dpo.benchmarks.methods.rows import image_forwards, rows
from dreambooth_dpo.toybox.defaults import TOY_SETTINGS

TABLE = rows(TOY_SETTINGS)


def test_spending_of_candidates_used_again_by_hand():
    """Of 24 prompts, 10 or 15 in 4 steps in place of 30: 960 or 1,440 a round. Those of rounds before cost nothing."""
    spent = {name: image_forwards(TABLE[name].settings, 24) for name in AGAIN}
    assert spent["third"] == spent["third_again_1"] == spent["third_again_2"] == 3 * (960 + 3840)
    assert spent["half_again_1"] == 3 * (1440 + 3840) and spent["again_1"] == spent["again_2"] == 3 * 6720
    assert [TABLE[name].settings.sampling.earlier_rounds for name in AGAIN] == [0, 1, 2, 1, 1, 2]


def test_spending_of_more_rounds_by_hand():
    """960 a round for 10 of 24 prompts in 4 steps, and 64 forwards a training step."""
    spent = {name: image_forwards(TABLE[name].settings, 24) for name in MORE_ROUNDS}
    assert spent["rounds_4_again_1"] == 4 * (960 + 63 * 64) and spent["rounds_5_again_2"] == 5 * (960 + 48 * 64)
    assert spent["rounds_6_again_1"] == 6 * (960 + 37 * 64) and spent["rounds_8_again_2"] == 8 * (960 + 24 * 64)
    assert all(0.98 < forwards / (3 * 6720) <= 1 for forwards in spent.values()), "as much as the default"
    assert TABLE["rounds_5_again_2"].settings.sampling.earlier_rounds == 2


def test_spending_of_candidates_in_two_steps_by_hand():
    """Of 24 prompts, 20 in 2 steps in place of 30 in 4: 960 a round in place of 2,880; 60 in 2 steps are as many."""
    spent = {name: image_forwards(TABLE[name].settings, 24) for name in DISTILLED}
    assert spent["few_2"] == spent["distilled_2"] == spent["distilled_2_again_1"] == 3 * (960 + 3840)
    assert spent["few_2_wide"] == spent["distilled_2_wide"] == 3 * 6720
    assert spent["distilled_2_rounds_4"] == 4 * (960 + 63 * 64) <= 3 * 6720
    assert [TABLE[name].few_steps for name in DISTILLED] == [False, True, True, False, True, True]
    assert TABLE["distilled_2_again_1"].settings.sampling.earlier_rounds == 1
