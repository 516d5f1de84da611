"""The sampling benchmark: its clock, its choice of whom to stop, its arithmetic, and a small run of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling_records import COSTS, records

from dreambooth_dpo.benchmarks.common.clock import Clock
from dreambooth_dpo.benchmarks.sampling import __main__ as sampling
from dreambooth_dpo.benchmarks.sampling import outcomes as sampling_pairs
from dreambooth_dpo.benchmarks.sampling.models import sampling_settings
from dreambooth_dpo.benchmarks.sampling.outcomes import outcome, row, table
from dreambooth_dpo.benchmarks.sampling.ways import (
    PER_PROMPT,
    RULES,
    Records,
    drafted,
    hope_in_window,
    hope_of_reward,
    hopes,
    least,
    stopped,
    until,
)
from dreambooth_dpo.dpo_core.pairs.rules import PAIR_RULES
from dreambooth_dpo.dpo_core.settings import PairSettings

OPEN = PairSettings(rule="angle_window", margin=0.0, max_pairs_per_prompt=100, max_uses=100)
BY_REWARD = OPEN.model_copy(update={"rule": "lambda_harmonic"})


# --- the clock ---


def test_a_phase_inside_another_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch):
    """0..1 outside, 1..3 denoise of which 2..2.5 text: denoise 1.5, text 0.5."""
    clock, ticks = Clock("cpu", ("write",)), iter([1.0, 2.0, 2.5, 3.0])
    monkeypatch.setattr(clock, "now", lambda: next(ticks))
    with clock.phase("denoise"):
        clock.wrapped("text", lambda: None)()
    assert clock.seconds == {"write": 0.0, "denoise": 1.5, "text": 0.5}


def test_a_wait_does_not_count_for_one_thread():
    clock = Clock()
    clock.kind = "CPU seconds"
    begun = clock.now()
    time.sleep(0.2)
    assert clock.now() - begun < 0.15


# --- who can hardly stand in a pair ---


def test_the_middling_ones_have_the_least_hope():
    """On the diagonal at 0, 4, 5 and 10: an improvement from 0 to 10 is 14.1 long at 45 degrees, 4 and 5 are near
    everyone's middle.
    """
    scores = np.array([0.0, 4.0, 5.0, 10.0])
    assert least(hope_in_window(scores, scores), 2).tolist() == least(hope_of_reward(scores), 2).tolist() == [1, 2]


def test_gaps_of_a_reward_by_hand():
    """0, 4, 6, 10: the sums of gaps are 20, 12, 12 and 20, over four. Of equal ones the first goes."""
    hope = hope_of_reward(np.array([0.0, 4.0, 6.0, 10.0]))
    assert hope.tolist() == [5.0, 3.0, 3.0, 5.0] and least(hope, 1).tolist() == [1]


@pytest.mark.parametrize("rule", RULES)
def test_hope_is_of_ones_own_prompt_by_the_rule(rule):
    """Two prompts; the second's scores are those of the first, a trifle higher.

    The hopes are the same, and none is another rule's.
    """
    rng = np.random.default_rng(3)
    prompt_of, settings = np.repeat([0, 1], 5), OPEN.model_copy(update={"rule": rule})
    fidelity, alignment = (np.tile(rng.uniform(-0.01, 0.01, 5), 2) for _ in range(2))
    found = hopes(prompt_of, fidelity + np.repeat([0.0, 1e-6], 5), alignment, settings)
    assert found.shape == (10,) and found[:5] == pytest.approx(found[5:], rel=1e-3)
    others = [
        hopes(prompt_of, fidelity, alignment, OPEN.model_copy(update={"rule": other}))
        for other in RULES
        if other != rule
    ]
    assert not any(np.allclose(found, other, rtol=1e-6) for other in others)


@pytest.mark.parametrize("rule", sorted(set(PAIR_RULES) - set(RULES)))
def test_a_rule_that_does_not_tell_is_refused(rule):
    with pytest.raises(SystemExit, match="does not tell whom to stop"):
        hopes(np.zeros(3, int), np.arange(3.0), np.arange(3.0), PairSettings(rule=rule))


def test_reach_by_hand():
    """From the first to the second 0 degrees and 10 long, 20 beside the window: reach 9.4. From the first to the third
    45 degrees and 7.07.

    Second over third is -45 degrees, 65 beside, third over second 135, as much: reach 3.0 both. Means over three
    (oneself among them): the first, as loser, 5.5; the second, as winner, 4.1; the third, as winner, 3.4.
    """
    fidelity, alignment = np.array([0.0, 10.0, 5.0]), np.array([0.0, 0.0, 5.0])
    assert hope_in_window(fidelity, alignment) == pytest.approx([5.5, 4.1, 3.4], abs=0.1)
    assert least(hope_in_window(fidelity, alignment), 2).tolist() == [1, 2]


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=12),
    st.integers(0, 12),
    st.floats(-5, 5),
    st.randoms(),
)
def test_the_choice_does_not_hang_on_order_or_place(points, count, shift, rng):
    fidelity, alignment = np.array(points, float).T
    count = min(count, len(points))
    chosen = least(hope_in_window(fidelity, alignment), count)
    assert len(set(chosen.tolist())) == count and all(0 <= i < len(points) for i in chosen)
    assert np.array_equal(least(hope_in_window(fidelity * 2, alignment * 2), count), chosen)
    order = list(range(len(points)))
    rng.shuffle(order)
    again = least(hope_in_window(fidelity[order], alignment[order]), count)
    if len(set(points)) == len(points) and count:
        # Equal hopes may be dropped in either order; what is kept must be worth the same.
        assert _hope(fidelity, alignment, chosen) == pytest.approx(_hope(fidelity, alignment, np.array(order)[again]))


def _hope(fidelity, alignment, dropped) -> float:
    d_f, d_a = fidelity[:, None] - fidelity, alignment[:, None] - alignment
    angle = np.degrees(np.arctan2(d_a, d_f))
    reach = np.hypot(d_f, d_a) * np.cos(np.radians(np.clip(np.maximum(20 - angle, angle - 70), 0, 90)))
    return float(np.maximum(reach.mean(0), reach.mean(1))[dropped].sum())


# --- ways of sparing ---


@pytest.mark.parametrize("by_chance", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_half_of_every_prompt_goes_on(rule, by_chance):
    found, settings = records(), OPEN.model_copy(update={"rule": rule})
    kept = stopped(found, 7, 4, settings, by_chance)
    assert np.bincount(found["prompt"][kept]).tolist() == [4, 4, 4]
    assert not kept[np.arange(len(kept)) % PER_PROMPT >= 7].any()
    assert np.array_equal(kept, stopped(found, 7, 4, settings, by_chance))


def test_who_is_stopped_hangs_on_the_rule():
    """0 and 1 lie across the diagonal, 2 above and 3 below them on it.

    Rewards (harmonic means of 0.7 and 0.4, and so on) 0.509, 0.509, 0.55 and 0.45: the two across are the middling
    ones. To the window they reach, at 65 degrees beside it, 0.849 cos 65 = 0.36 over each other, and 2 has the least:
    0.64 over its partners, against 0.97 and 1.16.
    """
    found = {"prompt": np.zeros(PER_PROMPT, int)}
    for axis, values in (("fidelity", [0.4, -0.2, 0.1, -0.1]), ("alignment", [-0.2, 0.4, 0.1, -0.1])):
        found[f"{axis}_3"] = np.array(values + [0.0] * (PER_PROMPT - 4))
    reward, window = (np.nonzero(~stopped(found, 4, 3, s)[:4])[0].tolist() for s in (BY_REWARD, OPEN))
    assert reward == [0, 1]
    assert len(window) == 2 and 2 in window and 3 not in window


def lacking() -> Records:
    """Two prompts: the first's second candidate is better than its others on both axes, the other's are all equal."""
    found = {
        "prompt": np.repeat([0, 1], PER_PROMPT),
        "fidelity": np.zeros(2 * PER_PROMPT),
        "alignment": np.zeros(2 * PER_PROMPT),
    }
    found["fidelity"][1] = found["alignment"][1] = 1.0
    return found


@pytest.mark.parametrize("settings", [OPEN, BY_REWARD])
def test_a_further_wave_is_for_prompts_that_lack_pairs(settings):
    """Two in the first wave, one pair of the first prompt, none of the other; four have three pairs of the first
    prompt.
    """
    found = lacking()

    def drawn(*args) -> list[int]:
        return np.bincount(found["prompt"][until(found, *args)]).tolist()

    assert drawn(2, 1, settings, 4) == [2, 4]
    assert drawn(2, 2, settings, 4) == [4, 4]
    assert drawn(2, 2, settings) == [4, PER_PROMPT]
    assert drawn(3, 99, settings, 7) == [7, 7]


@pytest.mark.parametrize("settings", [OPEN, BY_REWARD])
def test_quality_by_hand(settings):
    """Three on the diagonal, right: the highest alone. Of the pairs 2>0, 2>1 and 1>0, two are better, none is worse."""
    scores, everyone = np.array([0.0, 0.1, 0.2]), np.ones(3, bool)
    found = {"prompt": np.zeros(3, int), "right": np.array([0.0, 0.0, 1.0]), "fidelity": scores, "alignment": scores}
    assert outcome(found, everyone, 0.0, settings).tolist() == [3, 2, 0, 0]
    found["right"] = np.array([1.0, 0.0, 0.0])
    assert outcome(found, everyone, 0.0, settings.model_copy(update={"max_pairs_per_prompt": 3})).tolist() == [
        3,
        0,
        2,
        1,
    ]
    got = row("all", [found, found], [everyone] * 2, 2.0, settings.model_copy(update={"max_uses": 1}))
    # One pair a concept, the longest: 1.0 a second, none better.
    assert (got["pairs"], got["pairs_per_s"], got["worse"]) == (2, 1.0, 1.0) and set(
        got["pairs_per_s_at"].values()
    ) == {0.0}


def test_pairs_are_those_of_the_settings_rule():
    """One is better on one axis and worse on the other: by the reward a pair, by the window none."""
    found = {
        "prompt": np.zeros(2, int),
        "right": np.ones(2),
        "fidelity": np.array([0.0, 0.5]),
        "alignment": np.array([0.1, 0.0]),
    }
    counts = [int(outcome(found, np.ones(2, bool), 0.0, s)[0]) for s in (BY_REWARD, OPEN)]
    assert counts == [1, 0]


def test_drafts_in_pairs_are_drawn_in_full_and_no_others():
    """Rewards of the drafts 4, 2, 1, 3 of one prompt and no other that differs: with one pair a prompt first over third
    go on.

    The fifth, whose draft is better yet, is not among the first four.
    """
    found = {"prompt": np.zeros(PER_PROMPT, int)}
    for axis in ("fidelity", "alignment"):
        found[f"{axis}_draft_3"] = np.array([0.4, 0.2, 0.1, 0.3, 0.5] + [0.0] * (PER_PROMPT - 5))
    one = PairSettings(margin=0.0, max_pairs_per_prompt=1, max_uses=1)
    assert np.nonzero(drafted(found, 4, 3, one))[0].tolist() == [0, 2]
    assert np.nonzero(drafted(found, 4, 3, one.model_copy(update={"max_pairs_per_prompt": 2})))[0].tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_the_cost_of_drafting_is_drafts_looks_and_what_is_drawn_in_full():
    """Two concepts of 4 prompts x 10: 80 drafts of 0.04 and 80 looks of 0.015, then 0.115 for each in full."""
    rows = table([records(4, s) for s in (1, 2)], COSTS, PairSettings())
    found = next(r for r in rows if r["way"] == "10 drafted in 4, margin 1")
    assert found["seconds"] == pytest.approx(80 * 0.055 + 0.115 * found["pictures"]) and 0 < found["pictures"] <= 80


def test_the_table_compares_with_the_plain_way_of_the_nearest_cost():
    rows = table([records(4, s) for s in (1, 2)], COSTS, PairSettings())
    plain = {r["way"]: r for r in rows if r["way"].startswith("plain")}
    assert all(r["plain"] == name for name, r in plain.items())
    assert plain["plain 10"]["seconds"] == pytest.approx(80 * 0.115)
    # 14 begun at 4 of 12 steps and looked at, 7 gone on with: 112 * (0.1 / 3 + 0.015) + 56 * (0.2 / 3 + 0.015).
    half = next(r for r in rows if r["way"] == "14, half stopped at 4")
    assert half["seconds"] == pytest.approx(112 * (0.1 / 3 + 0.015) + 56 * (0.2 / 3 + 0.015)) and half["plain"] in plain
    assert plain["plain 3"]["at_cap"] == 0 and plain["plain 20"]["at_cap"] == 1
    for q in map(str, sampling_pairs.QUALITIES):
        at = [r["ratios_to_best"][q] for r in plain.values()]
        assert at == [None] * len(at) or max(at) == 1, "the best plain way is one of them"
    enough = next(r for r in rows if r["way"] == "until 3 of margin 1")
    assert enough["seconds"] == pytest.approx(0.115 * enough["pictures"]) and 32 <= enough["pictures"] <= 160


# --- the command ---


def test_models_have_settings_of_their_size():
    assert sampling_settings("toybox").width == 64 and sampling_settings("sd15", guidance=4.0).width == 512
    with pytest.raises(SystemExit, match="not with SDXL"):
        sampling.pipeline("sdxl")


def test_the_command_draws_on_both_sides_and_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampling, "VARIANTS", {"guidance 4 until 0.5": sampling.VARIANTS["guidance 4 until 0.5"]})
    monkeypatch.setattr(
        sampling, "sampling_settings", lambda name, **changes: sampling_settings(name, steps=2, **changes)
    )
    monkeypatch.setattr(
        sys,
        "argv",
        ["sampling", "--out", str(tmp_path), "--turns", "1", "--prompts", "1", "--batch", "8", "--device", "cpu"],
    )
    sampling.main()
    (found,) = json.loads((tmp_path / "sampling.json").read_text(encoding="utf-8"))["sampling"]
    assert found["pictures"] == 8 and found["ratio"] > 0 and found["steps"] == 2
    assert set(found["phases_s"]) == set(sampling.PHASES) and all(v > 0 for v in found["phases_s"].values())


def test_kept_candidates_are_not_drawn_again(tmp_path: Path):
    np.savez(tmp_path / "concept_3.npz", prompt=np.zeros(2, int), seconds_denoise=0.5)
    found, seconds = sampling_pairs.draw(3, tmp_path)
    assert set(found) == {"prompt"} and seconds == {"denoise": 0.5}
