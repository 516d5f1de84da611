"""A run that is broken off, at any moment of any stage, ends as the unbroken one."""

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
    """Scores are committed after each prompt."""
    monkeypatch.setattr(scoring, "BLOCK", 4)


@dataclass
class Unbroken:
    """A run that went through: what it ended with, and every progress call it made."""

    folder: Path
    events: list[str] = field(default_factory=list)
    result: dict = field(default_factory=dict)
    adapters: list[dict[str, torch.Tensor]] = field(default_factory=list)


def go_through(folder: Path, model: TextToImage | None = None) -> Unbroken:
    unbroken = Unbroken(folder)
    before, scoring.BLOCK = scoring.BLOCK, 4
    try:
        loop = make_loop(folder, model, progress=lambda stage, *_, **__: unbroken.events.append(stage))
        loop.go()
    finally:
        scoring.BLOCK = before
    unbroken.result, unbroken.adapters = outcome(loop.run), adapters(loop.run)
    return unbroken


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Unbroken:
    return go_through(tmp_path_factory.mktemp("unbroken") / "run")


def agree(run: RunFolder, unbroken: Unbroken, tolerance: float) -> None:
    """The same candidates, pairs and facts; scores, records and adapters to the tolerance."""
    found = outcome(run)
    for name in ("candidates", "pairs", "facts"):
        assert found[name] == unbroken.result[name], name
    if tolerance == 0:
        assert found == unbroken.result
    assert [len(v) for v in found["training"].values()] == [len(v) for v in unbroken.result["training"].values()]
    for mine, theirs in zip(adapters(run), unbroken.adapters, strict=True):
        assert difference(mine, theirs) <= tolerance


# --- broken off by an exception ---


class Broken(Exception):
    """Whatever ends a stage from outside."""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("stage", STAGES)
def test_an_exception_in_any_stage_changes_nothing(tmp_path: Path, unbroken: Unbroken, stage: str, moment: int) -> None:
    """At the stage's first, middle and last progress call; the resumed run is a new loop, as of a new process."""
    calls = [i for i, event in enumerate(unbroken.events) if event.startswith(STAGES[stage])]
    at, count = calls[(moment * (len(calls) - 1)) // 2], 0

    def interrupt(*_, **__) -> None:
        nonlocal count
        count += 1
        if count == at + 1:
            raise Broken

    with pytest.raises(Broken):
        make_loop(tmp_path / "run", progress=interrupt).go()
    loop = make_loop(tmp_path / "run")
    assert loop.run.fact("rounds") is None
    assert loop.go() == 2
    agree(loop.run, unbroken, 0)


@pytest.mark.parametrize("moment", [1, 3, 8])
def test_the_same_loop_can_go_on_after_an_interrupt(tmp_path: Path, unbroken: Unbroken, moment: int) -> None:
    """Its adapter has been trained a few steps by then: the round must begin at its start again, not there."""
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
    agree(loop.run, unbroken, 0)


def test_an_exception_inside_a_scorer_keeps_the_other_scorers_numbers(tmp_path: Path, unbroken: Unbroken) -> None:
    loop = make_loop(tmp_path / "run")
    alignment, asked = loop.rewards[1], []

    def broken(images, prompts):
        asked.append(len(images))
        raise Broken

    alignment.score = broken
    with pytest.raises(Broken):
        loop.go()
    assert asked == [6] or asked == [3]
    again = make_loop(tmp_path / "run")
    again.go()
    agree(again.run, unbroken, 0)
    assert sum(again.rewards[0].calls) == sum(again.rewards[1].calls) - asked[0]


def test_a_finished_run_does_nothing_more(unbroken: Unbroken) -> None:
    model = FakeModel()
    loop = make_loop(unbroken.folder, model)
    assert loop.go() == 2
    assert model.batches == [] and [s.calls for s in [*loop.rewards, *loop.judges]] == [[], [], []]
    agree(loop.run, unbroken, 0)
    assert difference(loop.adapter.state(), unbroken.adapters[-1]) == 0


# --- killed ---


@pytest.fixture(scope="module")
def nursery(tmp_path_factory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


def kill_and_resume(nursery: Nursery, unbroken: Unbroken, folder: Path, stage: str, seed: int) -> None:
    """Kill a run at a random progress line of the stage, a random while later; a second process takes it up."""
    rng = random.Random(f"{stage} {seed}")
    calls = [i for i, event in enumerate(unbroken.events) if event.startswith(STAGES[stage])]
    # Pairing tells of itself when it is done: kill it after the last score of its round instead.
    at = rng.choice(calls) - (stage == "pairing")
    status, events = nursery.run(folder, at, rng.uniform(0.0, 0.04))
    assert status == -signal.SIGKILL
    assert events == unbroken.events[: len(events)] and len(events) < len(unbroken.events)
    status, _ = nursery.run(folder)
    assert status == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither fork nor SIGKILL")
@pytest.mark.parametrize("seed", MOMENTS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_in_any_stage_changes_nothing(
    tmp_path: Path, nursery: Nursery, unbroken: Unbroken, stage: str, seed: int
) -> None:
    kill_and_resume(nursery, unbroken, tmp_path / "run", stage, seed)
    agree(RunFolder(tmp_path / "run"), unbroken, 1e-6)


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither fork nor SIGKILL")
def test_a_run_killed_again_and_again_still_ends_the_same(tmp_path: Path, nursery: Nursery, unbroken: Unbroken) -> None:
    rng, status = random.Random(4), -signal.SIGKILL
    for _ in range(8):
        status, _ = nursery.run(tmp_path / "run", rng.randrange(1, 9), rng.uniform(0.0, 0.04))
    while status == -signal.SIGKILL:
        status, _ = nursery.run(tmp_path / "run")
    assert status == 0
    agree(RunFolder(tmp_path / "run"), unbroken, 1e-6)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has neither fork nor SIGKILL")
def test_kills_of_a_pipeline_change_nothing(tmp_path: Path) -> None:
    """The whole matrix, three moments in each of five stages, on a StableDiffusionPipeline from the disk."""
    pipeline = tiny_pipeline(tmp_path / "pipeline")
    unbroken = go_through(tmp_path / "unbroken", DiffusersTextToImage(load_pipeline(pipeline)))
    nursery = Nursery(tmp_path, str(pipeline))
    try:
        for stage in STAGES:
            for seed in MOMENTS:
                folder = tmp_path / f"{stage}_{seed}"
                kill_and_resume(nursery, unbroken, folder, stage, seed)
                agree(RunFolder(folder), unbroken, 1e-6)
    finally:
        nursery.close()
