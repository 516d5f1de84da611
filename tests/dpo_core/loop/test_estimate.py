"""The estimate before a run, and the time left of one: figures worked out by hand."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.loop.estimate import (
    Counted,
    Timed,
    check_disk,
    count,
    forwards,
    gigabytes,
    pictures_words,
    seconds,
    training_forwards,
)
from dreambooth_dpo.dpo_core.settings import EvaluationSettings, LoopSettings, SamplingSettings, TrainSettings


def settings(**changes: object) -> LoopSettings:
    sampling = SamplingSettings(candidates_per_prompt=4, steps=10, guidance=4.0, width=64, height=64)
    train = TrainSettings(steps=20, batch_size=2, accumulation=1)
    evaluation = EvaluationSettings(seeds_per_prompt=2)
    return LoopSettings(rounds=3, sampling=sampling, train=train, evaluation=evaluation).model_copy(update=changes)


def test_the_pictures_of_a_run() -> None:
    """3 rounds of 5 prompts with 4 candidates: 60. Held out: 4 evaluations of 2 prompts with 2 seeds: 16."""
    assert count(settings(), 5, 2) == Counted(60, 0, 16)
    drafted = settings(sampling=settings().sampling.model_copy(update={"draft_steps": 3}))
    assert count(drafted, 5, 2) == Counted(60, 60, 16)
    sampled = settings().model_copy(update={"train": settings().train.model_copy(update={"sample_every": 4})})
    given = sampled.rounds * (sampled.train.steps // 4) * 2 * min(2, sampled.evaluation.seeds_per_prompt)
    assert count(sampled, 5, 2) == Counted(60, 0, 16, given) and given > 0
    ends = settings(evaluation=EvaluationSettings(seeds_per_prompt=2, every_round=False))
    assert count(ends, 5, 2).held_out == 8
    # Seven strengths, of which 0 and 1 are drawn already: 5 more sets of 4.
    assert count(settings(sweep=True), 5, 2).held_out == 16 + 20


def test_the_time_of_a_run() -> None:
    """A guided step of 0.2 s has two forwards of 0.1 s; a picture takes 0.5 + 10 * 0.2 = 2.5 s, 76 of them 190 s.

    Training: 3 rounds * 20 steps * 2 pairs * 2 pictures * 4 forwards of 0.1 s = 96 s.
    """
    assert seconds(Counted(60, 0, 16), settings(), Timed(0.5, 0.2)) == pytest.approx(190 + 96)


def test_the_time_of_a_run_whose_candidates_take_few_steps() -> None:
    """60 candidates of 5 steps without guidance: 0.5 + 5 * 0.1 = 1 s each. 16 held-out pictures of 2.5 s: 40 s.

    With drafts of 2 steps, 60 of 0.5 + 2 * 0.1 = 0.7 s come first.
    """
    few = {"candidate_steps": 5, "candidate_guidance": 1.0}
    given = settings(sampling=settings().sampling.model_copy(update=few))
    assert seconds(Counted(60, 0, 16), given, Timed(0.5, 0.2)) == pytest.approx(60 + 40 + 96)
    drafted = settings(sampling=settings().sampling.model_copy(update={**few, "draft_steps": 2}))
    assert seconds(Counted(60, 60, 16), drafted, Timed(0.5, 0.2)) == pytest.approx(60 + 42 + 40 + 96)


def test_the_disk_of_a_run() -> None:
    """76 pictures of 0.6 * 64 * 64 * 3 + 4 * 256 bytes, and (4 + 3) * 4 bytes for each of 1000 values."""
    assert gigabytes(Counted(60, 0, 16), settings(), 256, 1000) == pytest.approx(
        (76 * (0.6 * 12288 + 1024) + 28_000) / 1e9
    )


def test_the_forwards_of_a_picture_and_of_a_training_step() -> None:
    """Ten steps with guidance: 20. With guidance on the first half alone: 15. A step: 2 pictures * 4 * 2 pairs: 16."""
    sampling = settings().sampling
    assert forwards(sampling) == 20
    assert forwards(sampling.model_copy(update={"guidance_until": 0.5})) == 15
    assert forwards(sampling.model_copy(update={"guidance": 1.0})) == 10
    assert training_forwards(settings()) == 16


def test_a_disk_that_is_too_small_is_refused_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10e9, 8e9, 2e9) if path == tmp_path else None)
    assert check_disk(1.9, tmp_path / "not yet" / "there") == 2.0
    with pytest.raises(UserError, match="needs about 2.1 GB under .*there, where 2 GB are free. Free some, or draw"):
        check_disk(2.1, tmp_path / "not yet" / "there")


def test_the_pictures_in_words() -> None:
    assert pictures_words(Counted(60, 0, 16)) == "Pictures to draw: 60 candidates and 16 on held-out prompts."
    said = "Pictures to draw: 60 candidates (60 drafts first) and 16 on held-out prompts, 4 in sample grids."
    assert pictures_words(Counted(60, 60, 16, 4)) == said
