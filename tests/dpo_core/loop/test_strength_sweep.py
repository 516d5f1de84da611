"""Tests the strength sweep: recommendations worked out by hand, and complete and interrupted sweeps."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from loops import PROMPTS, FakeModel, Mean, changed, difference, make_loop
from pydantic import ValidationError

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.evaluation.stop_rule import Interval
from dreambooth_dpo.dpo_core.evaluation.strength import StrengthPoint, Sweep, measure, read_strengths, recommend
from dreambooth_dpo.dpo_core.json_values import from_json, to_json
from dreambooth_dpo.dpo_core.loop.rounds import Loop
from dreambooth_dpo.dpo_core.loop.strength_sweep import scaled, scaled_state, sweep
from dreambooth_dpo.dpo_core.settings import LoopSettings, StopSettings, StrengthSettings

STRENGTHS = (0.0, 0.5, 1.0, 1.5)
SETTINGS = changed(rounds=1, stop={"rule": "last"}, strength={"strengths": STRENGTHS}, sweep=True)


def point(strength: float, low: float, broken: tuple[str, ...] = (), high: float = 2.0) -> StrengthPoint:
    level = Interval(0.5, 0.4, 0.6)
    mean = 0.0 if math.isinf(low) else (low + high) / 2
    return StrengthPoint(strength, level, level, Interval(mean, low, high), broken)


ORIGINAL = point(0, 0.0, high=0.0)


# --- settings and texts ---


def test_strengths_are_sorted_unique_and_include_zero():
    assert StrengthSettings(strengths=(1, 0.5, 1.0)).strengths == (0.0, 0.5, 1.0)
    assert StrengthSettings().strengths == (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)
    assert read_strengths(" 1,0.50, ,4") == (0.0, 0.5, 1.0, 4.0)
    settings = LoopSettings(strength={"strengths": [0.3, 0.07]})
    assert LoopSettings.model_validate_json(settings.model_dump_json()) == settings and settings.strength.strengths == (
        0,
        0.07,
        0.3,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no strength is above 0"),
        ("0, 0", "no strength is above 0"),
        ("0.5, 4.5", "strength 4.5 is outside 0 to 4"),
        ("-1", "strength -1 is outside 0 to 4"),
        ("nan", "strength nan is outside"),
        ("0.5, 0.333", "strength 0.333 has more than two decimals; 0.33 is near enough"),
        ("0; 1", "is not a list of numbers separated by commas. Write them like 0, 0.5, 1."),
        ("half", "'half' is not a list of numbers"),
        (",".join(str(i / 100) for i in range(60)), "at most 50"),
    ],
)
def test_text_that_is_no_list_of_strengths_is_refused(text, said):
    with pytest.raises(UserError, match=said) as refused:
        read_strengths(text)
    assert repr(text)[:20] in str(refused.value)


def test_settings_refuse_a_strength_out_of_range():
    with pytest.raises(ValidationError, match="strength 9 is outside 0 to 4"):
        LoopSettings(strength={"strengths": [9]})


# --- the recommendation ---


def test_highest_lower_bound_is_recommended_not_the_largest_gain():
    value, words = recommend([ORIGINAL, point(0.5, 0.3, high=0.5), point(1, 0.2, high=1.4), point(1.5, -0.1)])
    assert value == 0.5
    assert words == (
        "Strength 0.5 is recommended: gain +0.40 standard deviations on held-out prompts (+0.30 to +0.50), "
        "the highest lower bound of 3 strengths above 0."
    )


def test_smaller_strength_is_recommended_on_a_tie():
    assert recommend([ORIGINAL, point(0.5, 0.3), point(1, 0.3)])[0] == 0.5
    assert recommend([ORIGINAL, point(1, 0.3), point(0.5, 0.3)])[0] == 0.5


def test_strength_with_a_failed_guard_is_not_recommended():
    value, words = recommend(
        [ORIGINAL, point(0.5, 0.2), point(1, 0.4, ("pictures of a prompt are alike",)), point(1.5, 0.1)]
    )
    assert value == 0.5 and words.endswith(" Strength 1 rose more, but pictures of a prompt are alike.")
    value, words = recommend([ORIGINAL, point(1, 0.4, ("the judge fell", "pictures copy"))])
    assert (value, words) == (
        0.0,
        "Keep the original (strength 0): strength 1 rose, but the judge fell and pictures copy.",
    )


def test_original_is_recommended_without_a_significant_gain():
    value, words = recommend([ORIGINAL, point(0.5, -0.1), point(1, 0.0)])
    assert (value, words) == (
        0.0,
        "Keep the original (strength 0): no strength shows a significant gain on held-out prompts.",
    )
    value, words = recommend([ORIGINAL, point(1, -math.inf, high=math.inf)])
    assert value == 0.0 and "a single held-out prompt has no interval" in words


def test_recommending_the_highest_strength_tried_is_pointed_out():
    assert recommend([ORIGINAL, point(0.5, 0.1), point(1, 0.2)])[1].endswith(
        "It is the highest strength tried: a higher one may be better still."
    )


def test_gains_guards_and_means_by_hand():
    """Two prompts of two images, spread 0.1 within each: fidelity +0.1 and alignment +0.05 give gain 0.75.

    In standard deviations these are +1 and +0.5. Copy-paste rises by 0.2 on both prompts, which fails its guard (0.1).
    Equal values of all prompts have intervals of width 0.
    """
    prompt_of = np.asarray([0, 0, 1, 1])
    start = {
        "fidelity": np.asarray([0.4, 0.6, 0.3, 0.5]),
        "alignment": np.asarray([0.1, 0.3, 0.5, 0.7]),
        "copy_paste": np.zeros(4),
    }
    half = {"fidelity": start["fidelity"] + 0.1, "alignment": start["alignment"] + 0.05, "copy_paste": np.full(4, 0.05)}
    full = {"fidelity": start["fidelity"] + 0.2, "alignment": start["alignment"] + 0.1, "copy_paste": np.full(4, 0.2)}
    points = measure({1.0: full, 0.0: start, 0.5: half}, prompt_of, StopSettings(), 500)
    assert [p.strength for p in points] == [0, 0.5, 1]
    assert points[0].gain == Interval(0, 0, 0) and not points[0].broken
    assert [v for p in points[1:] for v in (p.gain.mean, p.gain.low, p.gain.high)] == pytest.approx(
        [0.75] * 3 + [1.5] * 3
    )
    assert [p.fidelity.mean for p in points] == pytest.approx([0.45, 0.55, 0.65])
    assert (points[0].fidelity.low, points[0].fidelity.high) == pytest.approx((0.4, 0.5))
    assert [p.alignment.mean for p in points] == pytest.approx([0.4, 0.45, 0.5])
    assert [len(p.broken) for p in points] == [0, 0, 1] and "copy the photos more" in points[2].broken[0]
    assert recommend(points)[0] == 0.5


def test_sweep_round_trips_through_json():
    points = (ORIGINAL, point(0.5, -math.inf, high=math.inf), point(1, 0.2, ("the judge fell",)))
    found = Sweep(points, 0.0, "words")
    assert from_json(Sweep, json.loads(json.dumps(to_json(found), allow_nan=False))) == found


# --- the adapter ---


def effect(loop: Loop) -> torch.Tensor:
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    layer = next(iter(loop.adapter.policy.values()))
    return layer(x).detach()


@pytest.fixture
def trained(tmp_path) -> Loop:
    """A loop whose adapter has an effect; no images drawn yet."""
    loop = make_loop(tmp_path / "trained", settings=SETTINGS)
    state, draws = loop.adapter.state(), torch.Generator().manual_seed(3)
    loop.adapter.load({k: v + 0.4 * torch.randn(v.shape, generator=draws) for k, v in state.items()})
    return loop


def test_scaled_adapter_acts_by_its_strength_and_is_restored(trained):
    state, whole = trained.adapter.state(), effect(trained)
    for strength in (0.0, 0.5, 1.0, 1.5):
        with scaled(trained.adapter, strength):
            assert torch.allclose(effect(trained), strength * whole, atol=1e-6)
        assert difference(trained.adapter.state(), state) == 0
    assert difference(scaled_state(state, 1.0), state) == 0
    with pytest.raises(KeyboardInterrupt), scaled(trained.adapter, 0.5):
        raise KeyboardInterrupt
    assert difference(trained.adapter.state(), state) == 0


# --- the stage ---


def test_every_strength_is_drawn_with_the_same_seeds_and_the_scaled_adapter(trained):
    state = trained.adapter.state()
    found = sweep(trained)
    assert found.sets == ("strength_0.00", "strength_0.50", "strength_1.00", "strength_1.50")
    assert difference(trained.adapter.state(), state) == 0
    run = trained.run
    assert len({tuple((c.prompt, c.seed) for c in run.candidates(name)) for name in found.sets}) == 1
    assert len(run.candidates(found.sets[0])) == 3 * len(PROMPTS.held_out)
    plain = FakeModel()
    first = run.candidates(found.sets[0])
    drawn = plain.sample([c.prompt for c in first], [c.seed for c in first], SETTINGS.sampling)
    assert torch.equal(run.latents("strength_0.00"), drawn), "strength 0 is not the incoming model"
    trained.adapter.load(scaled_state(state, 1.5))
    with trained.adapter.merged():
        drawn = trained.model.sample([c.prompt for c in first], [c.seed for c in first], SETTINGS.sampling)
    assert torch.equal(run.latents("strength_1.50"), drawn)
    assert run.fact("strength") == to_json(found)
    means = [run.score_array(name, "fidelity").mean() for name in found.sets]
    assert [p.fidelity.mean for p in found.points] == pytest.approx(means)


def test_sweep_with_another_number_of_seeds_draws_its_own_images(trained):
    settings = trained.settings.model_copy(update={"strength": StrengthSettings(strengths=(1,), seeds_per_prompt=2)})
    loop = make_loop(trained.run.path, settings=settings)
    loop.adapter.load(trained.adapter.state())
    found = sweep(loop, {0.0: "evaluation_0", 1.0: "evaluation_1"})
    assert found.sets == ("strength_0.00", "strength_1.00") and len(loop.run.candidates("strength_1.00")) == 4


def test_images_of_another_adapter_are_drawn_again(trained):
    sweep(trained)
    before = trained.run.latents("strength_0.50")
    trained.adapter.load(scaled_state(trained.adapter.state(), 2.0))
    again = sweep(trained)
    assert not torch.equal(trained.run.latents("strength_0.50"), before)
    assert trained.run.fact("strength") == to_json(again)


class Stops(Mean):
    """Raises on its `at`-th call."""

    def __init__(self, at: int) -> None:
        super().__init__("judge_fidelity", 1)
        self.at = at

    def score(self, images, prompts):
        if len(self.calls) == self.at:
            raise KeyboardInterrupt
        return super().score(images, prompts)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_interrupted_sweep_restores_the_adapter_and_resumes_to_the_same_numbers(trained, tmp_path, at):
    whole, state = sweep(trained), trained.adapter.state()
    loop = make_loop(tmp_path / "broken", settings=SETTINGS, judges=[Stops(at)])
    loop.adapter.load(state)
    with pytest.raises(KeyboardInterrupt):
        sweep(loop)
    assert difference(loop.adapter.state(), state) == 0
    assert not loop.adapter._placed and loop.run.fact("strength") is None

    model = FakeModel()
    resumed = make_loop(tmp_path / "broken", model, SETTINGS)
    resumed.adapter.load(state)
    assert sweep(resumed) == whole
    assert model.batches == [], "all strengths are drawn before the first is scored, and none of them again"
    resumed = make_loop(tmp_path / "broken", model := FakeModel(), SETTINGS)
    resumed.adapter.load(state)
    assert sweep(resumed) == whole and model.batches == []
    assert all(s.calls == [] for s in [*resumed.rewards, *resumed.judges])


# --- at a run's end ---


def test_run_sweeps_at_its_end_and_reuses_its_evaluations_for_0_and_1(tmp_path):
    loop = make_loop(tmp_path / "run", settings=SETTINGS)
    assert loop.go() == 1
    kept = from_json(Sweep, loop.run.fact("strength"))
    assert kept.sets == ("evaluation_0", "strength_0.50", "evaluation_1", "strength_1.50")
    assert difference(loop.adapter.state(), loop.run.load_state("adapter_1")[0]) == 0
    # Drawn again, the images are the same.
    other = make_loop(tmp_path / "other", settings=SETTINGS)
    other.adapter.load(loop.adapter.state())
    anew = sweep(other)
    assert anew.points == kept.points
    for mine, theirs in zip(kept.sets, anew.sets, strict=True):
        assert torch.equal(loop.run.latents(mine), other.run.latents(theirs))


def test_without_the_sweep_setting_nothing_is_swept(tmp_path):
    loop = make_loop(tmp_path / "run", settings=SETTINGS.model_copy(update={"sweep": False}))
    loop.go()
    assert loop.run.fact("strength") is None and loop.run.candidates("strength_0.50") == []


def test_run_without_a_measured_round_has_nothing_to_sweep(tmp_path):
    from dreambooth_dpo.dpo_core.loop.strength_sweep import sweep_kept

    loop = make_loop(tmp_path / "run", settings=SETTINGS)
    sweep_kept(loop, 0)
    assert loop.run.fact("strength") == {"value": 0.0, "words": loop.run.fact("strength")["words"], "points": []}
    assert "no round was measured" in loop.run.fact("strength")["words"] and loop.model.batches == []
