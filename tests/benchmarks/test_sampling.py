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

from dreambooth_dpo.benchmarks import sampling, sampling_pairs
from dreambooth_dpo.benchmarks.clock import Clock
from dreambooth_dpo.benchmarks.sampling_models import sampling_settings
from dreambooth_dpo.benchmarks.sampling_pairs import PER_PROMPT, least_hopeful, outcome, row, stopped, table, waves
from dreambooth_dpo.dpo_core.settings import PairSettings

OPEN = PairSettings(margin=0.0, max_pairs_per_prompt=100, max_uses=100)


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
    """On the diagonal at 0, 4, 5 and 10: an improvement from 0 to 10 is 14.1 long at 45 degrees, 4 and 5 are near everyone's middle."""
    scores = np.array([0.0, 4.0, 5.0, 10.0])
    assert least_hopeful(scores, scores, 2).tolist() == [1, 2]


def test_reach_by_hand():
    """From the first to the second 0 degrees and 10 long, 20 beside the window: reach 9.4. From the first to the third 45 degrees and 7.07.

    Second over third is -45 degrees, 65 beside, third over second 135, as much: reach 3.0 both. Means over three (oneself among them): the
    first, as loser, 5.5; the second, as winner, 4.1; the third, as winner, 3.4.
    """
    fidelity, alignment = np.array([0.0, 10.0, 5.0]), np.array([0.0, 0.0, 5.0])
    assert least_hopeful(fidelity, alignment, 1).tolist() == [2]
    assert least_hopeful(fidelity, alignment, 2).tolist() == [1, 2]


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=12), st.integers(0, 12), st.floats(-5, 5), st.randoms()
)
def test_the_choice_does_not_hang_on_order_or_place(points, count, shift, rng):
    fidelity, alignment = np.array(points, float).T
    count = min(count, len(points))
    chosen = least_hopeful(fidelity, alignment, count)
    assert len(set(chosen.tolist())) == count and all(0 <= i < len(points) for i in chosen)
    assert np.array_equal(least_hopeful(fidelity * 2, alignment * 2, count), chosen)
    order = list(range(len(points)))
    rng.shuffle(order)
    again = least_hopeful(fidelity[order], alignment[order], count)
    if len(set(points)) == len(points) and count:
        # Equal hopes may be dropped in either order; what is kept must be worth the same.
        assert _hope(fidelity, alignment, chosen) == pytest.approx(_hope(fidelity, alignment, np.array(order)[again]))


def _hope(fidelity, alignment, dropped) -> float:
    d_f, d_a = fidelity[:, None] - fidelity, alignment[:, None] - alignment
    angle = np.degrees(np.arctan2(d_a, d_f))
    reach = np.hypot(d_f, d_a) * np.cos(np.radians(np.clip(np.maximum(20 - angle, angle - 70), 0, 90)))
    return float(np.maximum(reach.mean(0), reach.mean(1))[dropped].sum())


# --- ways of sparing ---


def records(prompts: int = 3, seed: int = 0) -> sampling_pairs.Records:
    rng, n = np.random.default_rng(seed), prompts * PER_PROMPT
    found = {"prompt": np.repeat(np.arange(prompts), PER_PROMPT), "right": rng.integers(0, 2, n).astype(float)}
    for axis in ("fidelity", "alignment"):
        found[axis] = rng.normal(size=n)
        found |= {f"{axis}_{step}": found[axis] + 0.3 * rng.normal(size=n) for step in sampling_pairs.STEPS_AT}
    return found


@pytest.mark.parametrize("by_chance", [False, True])
def test_half_of_every_prompt_goes_on(by_chance):
    found = records()
    kept = stopped(found, 7, 4, by_chance)
    assert np.bincount(found["prompt"][kept]).tolist() == [4, 4, 4]
    assert not kept[np.arange(len(kept)) % PER_PROMPT >= 7].any()
    assert np.array_equal(kept, stopped(found, 7, 4, by_chance))


def test_the_second_wave_is_for_prompts_that_lack_pairs():
    """Two prompts, two candidates in the first wave: one prompt's are an improvement at 45 degrees, the other's one at 135."""
    found = {"prompt": np.repeat([0, 1], PER_PROMPT), "fidelity": np.zeros(2 * PER_PROMPT), "alignment": np.zeros(2 * PER_PROMPT)}
    found["fidelity"][[1, PER_PROMPT]] = found["alignment"][[1, PER_PROMPT + 1]] = 1.0
    kept = waves(found, 4, 1, OPEN)
    assert np.bincount(found["prompt"][kept]).tolist() == [2, 4]
    assert np.bincount(found["prompt"][waves(found, 4, 2, OPEN)]).tolist() == [4, 4]


def test_quality_by_hand():
    """Three on the diagonal, right: the highest alone. Of the pairs 2>0, 2>1 and 1>0, two are better, none is worse."""
    found = {"prompt": np.zeros(3, int), "right": np.array([0.0, 0.0, 1.0]), "fidelity": np.arange(3.0), "alignment": np.arange(3.0)}
    assert outcome(found, np.ones(3, bool), 0.0, OPEN).tolist() == [3, 2, 0]
    found["right"] = np.array([1.0, 0.0, 0.0])
    assert outcome(found, np.ones(3, bool), 0.0, OPEN).tolist() == [3, 0, 2]
    got = row("all", [found, found], [np.ones(3, bool)] * 2, 2.0, OPEN.model_copy(update={"max_uses": 1}))
    # One pair a concept, the longest: 1.0 a second, none better.
    assert (got["pairs"], got["pairs_per_s"], got["worse"]) == (2, 1.0, 1.0) and set(got["pairs_per_s_at"].values()) == {0.0}


def test_the_table_compares_with_the_plain_way_of_the_nearest_cost():
    rows = table([records(4, s) for s in (1, 2)], {"denoise": 0.1, "decode": 0.01, "score": 0.005}, PairSettings())
    plain = {r["way"]: r for r in rows if r["way"].startswith("plain")}
    assert all(r["plain"] == name for name, r in plain.items())
    assert plain["plain 10"]["seconds"] == pytest.approx(80 * 0.115)
    # 14 begun at 4 of 12 steps and looked at, 7 gone on with: 112 * (0.1 / 3 + 0.015) + 56 * (0.2 / 3 + 0.015).
    half = next(r for r in rows if r["way"] == "14, half stopped at 4")
    assert half["seconds"] == pytest.approx(112 * (0.1 / 3 + 0.015) + 56 * (0.2 / 3 + 0.015)) and half["plain"] in plain


# --- the command ---


def test_models_have_settings_of_their_size():
    assert sampling_settings("toybox").width == 64 and sampling_settings("sd15", guidance=4.0).width == 512
    with pytest.raises(SystemExit, match="not with SDXL"):
        sampling.pipeline("sdxl")


def test_the_command_draws_on_both_sides_and_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampling, "VARIANTS", {"guidance 4 until 0.5": sampling.VARIANTS["guidance 4 until 0.5"]})
    monkeypatch.setattr(sampling, "sampling_settings", lambda name, **changes: sampling_settings(name, steps=2, **changes))
    monkeypatch.setattr(
        sys, "argv", ["sampling", "--out", str(tmp_path), "--turns", "1", "--prompts", "1", "--batch", "8", "--device", "cpu"]
    )
    sampling.main()
    (found,) = json.loads((tmp_path / "sampling.json").read_text(encoding="utf-8"))["sampling"]
    assert found["pictures"] == 8 and found["ratio"] > 0 and found["steps"] == 2
    assert set(found["phases_s"]) == set(sampling.PHASES) and all(v > 0 for v in found["phases_s"].values())


def test_kept_candidates_are_not_drawn_again(tmp_path: Path):
    np.savez(tmp_path / "concept_3.npz", prompt=np.zeros(2, int), seconds_denoise=0.5)
    found, seconds = sampling_pairs.draw(3, tmp_path)
    assert set(found) == {"prompt"} and seconds == {"denoise": 0.5}
