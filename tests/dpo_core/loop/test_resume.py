"""Tests that a run interrupted at any moment of any stage ends as the uninterrupted one."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from loops import FakeModel, Nursery, adapters, difference, make_loop, outcome
from models import tiny_pipeline

from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from dreambooth_dpo.dpo_core.protocols import TextToImage
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.scoring import sets as scoring

STAGES = {
    "sampling": "sample round_",
    "scoring": "score round_",
    "pairing": "pairs round_",
    "training": "train round_",
    "evaluating": ("sample evaluation_", "score evaluation_"),
}
MOMENTS = (0, 1, 2)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit scores after each prompt."""
    monkeypatch.setattr(scoring, "BLOCK", 4)


@dataclass
class Uninterrupted:
    """An uninterrupted run: its final facts and every progress call it made."""

    folder: Path
    events: list[str] = field(default_factory=list)
    result: dict = field(default_factory=dict)
    adapters: list[dict[str, torch.Tensor]] = field(default_factory=list)


def go_through(folder: Path, model: TextToImage | None = None) -> Uninterrupted:
    uninterrupted = Uninterrupted(folder)
    before, scoring.BLOCK = scoring.BLOCK, 4
    try:
        loop = make_loop(folder, model, progress=lambda stage, *_, **__: uninterrupted.events.append(stage))
        loop.go()
    finally:
        scoring.BLOCK = before
    uninterrupted.result, uninterrupted.adapters = outcome(loop.run), adapters(loop.run)
    return uninterrupted


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Uninterrupted:
    return go_through(tmp_path_factory.mktemp("uninterrupted") / "run")


def agree(run: RunFolder, uninterrupted: Uninterrupted, tolerance: float) -> None:
    """Assert equal candidates, pairs and facts; scores, records and adapters equal to the tolerance."""
    found = outcome(run)
    for name in ("candidates", "pairs", "facts"):
        assert found[name] == uninterrupted.result[name], name
    if tolerance == 0:
        assert found == uninterrupted.result
    assert [len(v) for v in found["training"].values()] == [len(v) for v in uninterrupted.result["training"].values()]
    for mine, theirs in zip(adapters(run), uninterrupted.adapters, strict=True):
        assert difference(mine, theirs) <= tolerance


# --- interrupted by an exception ---


class Interrupted(Exception):
    """An exception from outside that ends a stage."""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("stage", STAGES)
def test_exception_in_any_stage_does_not_change_the_result(
    tmp_path: Path, uninterrupted: Uninterrupted, stage: str, moment: int
) -> None:
    """Raised at the stage's first, middle and last progress call; a new loop, as of a new process, resumes the run."""
    calls = [i for i, event in enumerate(uninterrupted.events) if event.startswith(STAGES[stage])]
    at, count = calls[(moment * (len(calls) - 1)) // 2], 0

    def interrupt(*_, **__) -> None:
        nonlocal count
        count += 1
        if count == at + 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        make_loop(tmp_path / "run", progress=interrupt).go()
    loop = make_loop(tmp_path / "run")
    assert loop.run.fact("rounds") is None
    assert loop.go() == 2
    agree(loop.run, uninterrupted, 0)


@pytest.mark.parametrize("moment", [1, 3, 8])
def test_same_loop_can_continue_after_an_interrupt(tmp_path: Path, uninterrupted: Uninterrupted, moment: int) -> None:
    """Its adapter has been trained a few steps by then, and the round must restart from its initial state."""
    count = 0

    def interrupt(stage: str, *_, **__) -> None:
        nonlocal count
        count += stage.startswith("train")
        if stage.startswith("train") and count == moment:
            raise KeyboardInterrupt

    loop = make_loop(tmp_path / "run", progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.go()
    loop.go()
    agree(loop.run, uninterrupted, 0)


def test_exception_in_a_scorer_keeps_the_other_scorers_scores(tmp_path: Path, uninterrupted: Uninterrupted) -> None:
    loop = make_loop(tmp_path / "run")
    alignment, asked = loop.rewards[1], []

    def interrupted(images, prompts):
        asked.append(len(images))
        raise Interrupted

    alignment.score = interrupted
    with pytest.raises(Interrupted):
        loop.go()
    assert asked == [6] or asked == [3]
    again = make_loop(tmp_path / "run")
    again.go()
    agree(again.run, uninterrupted, 0)
    assert sum(again.rewards[0].calls) == sum(again.rewards[1].calls) - asked[0]


def test_finished_run_has_nothing_left_to_do(uninterrupted: Uninterrupted) -> None:
    model = FakeModel()
    loop = make_loop(uninterrupted.folder, model)
    assert loop.go() == 2
    assert model.batches == [] and [s.calls for s in [*loop.rewards, *loop.judges]] == [[], [], []]
    agree(loop.run, uninterrupted, 0)
    assert difference(loop.adapter.state(), uninterrupted.adapters[-1]) == 0


# --- killed ---


@pytest.fixture(scope="module")
def nursery(tmp_path_factory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


def kill_and_resume(nursery: Nursery, uninterrupted: Uninterrupted, folder: Path, stage: str, seed: int) -> None:
    """Kill a run at a random progress line of the stage plus a random delay; a second process resumes it."""
    rng = random.Random(f"{stage} {seed}")
    calls = [i for i, event in enumerate(uninterrupted.events) if event.startswith(STAGES[stage])]
    # Pairing reports progress only when it is done, so kill it after the last score of its round instead.
    at = rng.choice(calls) - (stage == "pairing")
    status, events = nursery.run(folder, at, rng.uniform(0.0, 0.04))
    assert status == -signal.SIGKILL
    assert events == uninterrupted.events[: len(events)] and len(events) < len(uninterrupted.events)
    status, _ = nursery.run(folder)
    assert status == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither fork nor SIGKILL")
@pytest.mark.parametrize("seed", MOMENTS)
@pytest.mark.parametrize("stage", STAGES)
def test_kill_in_any_stage_does_not_change_the_result(
    tmp_path: Path, nursery: Nursery, uninterrupted: Uninterrupted, stage: str, seed: int
) -> None:
    kill_and_resume(nursery, uninterrupted, tmp_path / "run", stage, seed)
    agree(RunFolder(tmp_path / "run"), uninterrupted, 1e-6)


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither fork nor SIGKILL")
def test_repeated_kills_do_not_change_the_result(
    tmp_path: Path, nursery: Nursery, uninterrupted: Uninterrupted
) -> None:
    rng, status = random.Random(4), -signal.SIGKILL
    for _ in range(8):
        status, _ = nursery.run(tmp_path / "run", rng.randrange(1, 9), rng.uniform(0.0, 0.04))
    while status == -signal.SIGKILL:
        status, _ = nursery.run(tmp_path / "run")
    assert status == 0
    agree(RunFolder(tmp_path / "run"), uninterrupted, 1e-6)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has neither fork nor SIGKILL")
def test_kills_with_a_real_pipeline_do_not_change_the_result(tmp_path: Path) -> None:
    """Three moments in each of five stages, with a StableDiffusionPipeline loaded from disk."""
    pipeline = tiny_pipeline(tmp_path / "pipeline")
    uninterrupted = go_through(tmp_path / "uninterrupted", DiffusersTextToImage(load_pipeline(pipeline)))
    nursery = Nursery(tmp_path, str(pipeline))
    try:
        for stage in STAGES:
            for seed in MOMENTS:
                folder = tmp_path / f"{stage}_{seed}"
                kill_and_resume(nursery, uninterrupted, folder, stage, seed)
                agree(RunFolder(folder), uninterrupted, 1e-6)
    finally:
        nursery.close()
