"""Progress of a run and its time left, by figures worked out by hand."""

from __future__ import annotations

import pytest

from dreambooth_dpo.dpo_core.loop.time_left import Left, Meter, Part, plan_parts, share_done, time_left
from dreambooth_dpo.dpo_core.settings import EvaluationSettings, LoopSettings, SamplingSettings, TrainSettings

PARTS = (Part(0, "draw", 10, 20), Part(0, "score", 10), Part(0, "train", 5, 40), Part(0, "measure", 4, 20))
"""200, 10, 200 and 80 forwards."""


def settings(**changes: object) -> LoopSettings:
    sampling = SamplingSettings(candidates_per_prompt=4, steps=10, guidance=4.0, width=64, height=64)
    train = TrainSettings(steps=20, batch_size=2, accumulation=1)
    given = {"rounds": 2, "sampling": sampling, "train": train, "evaluation": EvaluationSettings(seeds_per_prompt=2)}
    return LoopSettings(**{**given, **changes})


def test_the_plan_of_two_rounds() -> None:
    """5 prompts * 4 candidates of 20 forwards; 20 steps of 2 * 4 * 2; 3 held-out prompts * 2 seeds, twice at first."""
    each = [("draw", 20, 20), ("score", 20, 1), ("pairs", 0, 1), ("train", 20, 16)]
    found = [(part.round, part.stage, part.units, part.weight) for part in plan_parts(settings(), 5, 3)]
    first = [(0, *stage) for stage in (*each, ("measure", 12, 20), ("judge", 12, 1))]
    assert found == first + [(1, *stage) for stage in (*each, ("measure", 6, 20), ("judge", 6, 1))]


def test_drafts_and_a_run_that_is_not_measured() -> None:
    """Drafts of 3 guided steps take 6 forwards."""
    drafted = settings().sampling.model_copy(update={"draft_steps": 3})
    changes = {"rounds": 1, "sampling": drafted, "evaluation": EvaluationSettings(every_round=False)}
    stages = [(part.stage, part.units, part.weight) for part in plan_parts(settings(**changes), 5, 3)]
    assert stages == [
        ("draw", 20, 6), ("score", 20, 1), ("pairs", 0, 1), ("finish", 20, 20), ("rescore", 20, 1), ("train", 20, 16),
    ]  # fmt: skip


def test_candidates_in_few_steps_weigh_less_than_held_out_pictures() -> None:
    """5 steps without guidance are 5 forwards; a held-out picture keeps its 20."""
    few = settings().sampling.model_copy(update={"candidate_steps": 5, "candidate_guidance": 1.0})
    found = {part.stage: part.weight for part in plan_parts(settings(rounds=1, sampling=few), 5, 3)}
    assert (found["draw"], found["measure"]) == (5, 20)


def test_the_share_counts_forwards() -> None:
    """Half of the drawing is 100 of 490 forwards."""
    assert share_done(PARTS, [5, 0, 0, 0]) == pytest.approx(100 / 490)
    assert share_done(PARTS, [10, 10, 5, 4]) == 1


@pytest.mark.parametrize(
    ("done", "rates", "left"),
    [
        ([0, 0, 0, 0], {}, Left(None, ("drawing", "training", "scoring"))),
        # Scoring alone says nothing of drawing.
        ([0, 0, 0, 0], {"score": 0.5}, Left(None, ("drawing", "training"))),
        # 100 + 200 + 80 forwards at 0.1 s; scoring is not in it.
        ([5, 0, 0, 0], {"draw": 0.1}, Left(38.0, ("training", "scoring"))),
        # (100 + 80) * 0.1 + 200 * 0.2 + 10 * 0.5
        ([5, 0, 0, 0], {"draw": 0.1, "train": 0.2, "score": 0.5}, Left(63.0)),
        # What is over needs no rate: 80 forwards at training's 0.2 s.
        ([10, 10, 5, 0], {"train": 0.2}, Left(16.0, ("drawing",))),
        ([10, 10, 5, 4], {}, Left(0.0)),
    ],
)
def test_the_time_left(done: list[float], rates: dict[str, float], left: Left) -> None:
    found = time_left(PARTS, done, rates)
    assert found.unmeasured == left.unmeasured
    assert found.seconds is None if left.seconds is None else found.seconds == pytest.approx(left.seconds)


def test_the_words() -> None:
    assert Left(None, ("drawing",)).words() == "measuring"
    assert Left(130.0, ("training",)).words() == "about 2 min left (not measured yet: training)"
    assert Left(8.0).words() == "about 8 s left"


def test_the_rate_is_that_of_all_reports_but_the_first() -> None:
    """The first batch takes 50 s with loading: alone it gives 50 / (2 * 20) s a forward. 2 pictures in 4 s: 0.1."""
    meter = Meter(PARTS, started=100.0)
    assert meter.left().seconds is None
    meter.begin(0, "draw", 105.0)
    meter.report(0, "draw", "sample a", 2, 10, 2, 155.0)
    assert meter.rates() == {"draw": pytest.approx(1.25)}
    meter.report(0, "draw", "sample a", 4, 10, 2, 159.0)
    assert meter.rates() == {"draw": pytest.approx(0.1)}
    assert meter.left().seconds == pytest.approx(0.1 * (6 * 20 + 200 + 80))
    assert meter.share() == pytest.approx(80 / 490)


def test_units_that_were_there_give_no_rate() -> None:
    """Resumed: of 8 pictures in the first report 2 at most are new; a block with all scores takes no time."""
    meter = Meter(PARTS, started=0.0)
    meter.begin(0, "draw", 0.0)
    meter.report(0, "draw", "sample a", 8, 10, 2, 4.0)
    assert meter.rates() == {"draw": pytest.approx(0.1)} and meter.done[0] == 8
    meter.report(0, "score", "score a", 10, 10, 10, 4.0001)
    assert "score" not in meter.rates() and meter.done[:2] == [10, 10]


def test_a_stage_that_begins_ends_those_before_it_and_sets_add_up() -> None:
    meter = Meter(PARTS, started=0.0)
    meter.begin(0, "train", 9.0)
    assert meter.done == [10, 10, 0, 0]
    meter.report(0, "measure", "sample start", 2, 2, 2, 12.0)
    meter.report(0, "measure", "sample after", 1, 2, 2, 13.0)
    assert meter.done == [10, 10, 5, 3]
    meter.end(0, "measure")
    assert meter.share() == 1


def test_pictures_on_their_way_move_the_bar_and_give_no_rate() -> None:
    meter = Meter(PARTS, started=0.0)
    meter.partly(0, "draw", 0.5)
    assert meter.share() == pytest.approx(10 / 490) and meter.rates() == {}
    meter.report(0, "draw", "sample a", 2, 10, 2, 4.0)
    assert meter.share() == pytest.approx(40 / 490)
