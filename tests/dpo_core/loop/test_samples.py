"""Tests sample grids: what they show, that training does not see them, and grids after an interruption."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from loops import PROMPTS, FakeModel, adapters, changed, difference, make_loop, outcome
from models import tiny_text_to_image
from PIL import Image

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.loop.samples import sample_path
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.same_run import check_same_run
from dreambooth_dpo.dpo_core.settings import TrainSettings

SAMPLED = changed(train={"sample_every": 3, "log_every": 4, "checkpoint_every": 3})
PLAIN = changed(train={"log_every": 4, "checkpoint_every": 3})


def grids(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.glob("round_*/samples/*"))


def test_a_grid_every_3_of_6_steps_changes_no_number(tmp_path: Path) -> None:
    sampled, plain = (
        make_loop(tmp_path / name, settings=settings) for name, settings in (("with", SAMPLED), ("without", PLAIN))
    )
    sampled.go()
    plain.go()
    assert grids(plain.run.path) == []
    assert grids(sampled.run.path) == [f"round_{r}/samples/step_{step:06d}.png" for r in (0, 1) for step in (3, 6)]
    assert outcome(sampled.run) == outcome(plain.run)
    for one, other in zip(adapters(sampled.run), adapters(plain.run), strict=True):
        assert difference(one, other) == 0


def test_a_grid_shows_the_evaluations_pictures_of_the_same_adapter(tmp_path: Path) -> None:
    """After a round's last step the adapter is the one that the evaluation draws with: prompts down, seeds across.

    The tiny model's pictures have 8 x 8 pixels, enlarged 16 times; the grid's geometry is that of report/plots/grids.
    """
    loop = make_loop(tmp_path / "run", settings=changed(rounds=1, train={"sample_every": 6}))
    loop.go()
    grid = np.asarray(Image.open(sample_path(loop.run, 0, 6)).convert("RGB"))
    pictures = loop.run.images("evaluation_1").reshape(len(PROMPTS.held_out), 3, 8, 8, 3)
    for row in range(2):
        for column in range(2):
            top, left = 46 + row * (128 + 8), 2 * 128 + column * (128 + 8)
            tile = grid[top : top + 128, left : left + 128][8::16, 8::16]
            # merged weights for the evaluation, hooks here: a rounding of the last digit
            assert np.abs(tile.astype(int) - pictures[row, column]).max() <= 1
    assert (grid[:, :256] < 128).any(), "the prompts stand beside their rows"


def test_with_a_moving_average_the_grid_shows_the_average(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "run", settings=changed(rounds=1, train={"sample_every": 6, "ema_decay": 1.0}))
    loop.go()
    grid = np.asarray(Image.open(sample_path(loop.run, 0, 6)).convert("RGB"))
    averaged = loop.run.images("evaluation_1")[0]
    tile = grid[46 : 46 + 128, 256 : 256 + 128][8::16, 8::16]
    assert np.abs(tile.astype(int) - averaged).max() <= 1


@pytest.mark.parametrize("level", ["fast", "checkpointing", "low", "stream"])
def test_a_real_pipeline_trains_the_same_at_every_memory_level(tmp_path: Path, level: str) -> None:
    train = {"steps": 3, "memory": level}
    given = {"with": {**train, "sample_every": 2}, "without": train}
    ends = []
    for name, settings in given.items():
        loop = make_loop(tmp_path / name, tiny_text_to_image(), changed(rounds=1, train=settings))
        loop.go()
        ends.append(loop.adapter.state())
    assert difference(*ends) == 0 and grids(tmp_path / "with") == ["round_0/samples/step_000002.png"]


class Killed(Exception):
    pass


class FailsInTraining(FakeModel):
    """Cannot decode while it trains."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.trains = error, False

    @contextmanager
    def training(self, stream: bool | None = False) -> Iterator[None]:
        self.trains = True
        yield
        self.trains = False

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        if self.trains:
            raise self.error
        return super().decode(latents)


def test_resumed_runs_have_all_grids_and_the_same_numbers(tmp_path: Path) -> None:
    """Killed while the grid after step 3 is drawn, whose checkpoint is written: it is drawn by the resumed run."""

    plain = make_loop(tmp_path / "plain", settings=PLAIN)
    plain.go()
    with pytest.raises(Killed):
        make_loop(tmp_path / "run", FailsInTraining(Killed()), SAMPLED).go()
    run = RunFolder(tmp_path / "run")
    assert run.load_state("training_0")[1] == {"next_step": "3"} and grids(run.path) == []
    make_loop(tmp_path / "run", settings=SAMPLED).go()
    assert len(grids(run.path)) == 4
    assert outcome(run) == outcome(plain.run)
    assert difference(adapters(run)[2], adapters(plain.run)[2]) == 0


def test_a_grid_that_cannot_be_drawn_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = FailsInTraining(torch.OutOfMemoryError("no more"))
    with caplog.at_level(logging.WARNING):
        loop = make_loop(tmp_path / "run", full, SAMPLED)
        loop.go()
    assert loop.run.fact("rounds") == 2 and grids(loop.run.path) == []
    assert "no sample grid after step 3 of round 0: " in caplog.text and "does not fit into memory" in caplog.text


def test_sample_settings_may_change_in_a_run_and_others_not(tmp_path: Path) -> None:
    def described(**train: object) -> dict:
        return {"settings": changed(train=train).model_dump(mode="json")}

    run = RunFolder(tmp_path / "run")
    check_same_run(run, described(), resume=False)
    run.save_state("adapter_1", {"a": torch.zeros(1)})
    check_same_run(run, described(sample_every=10, sample_prompts=2), resume=True)
    with pytest.raises(UserError, match=r"settings\.train\.ema_decay was None, is 0\.9"):
        check_same_run(run, described(ema_decay=0.9), resume=True)
    assert not {"sample_every", "sample_prompts"} & set(TrainSettings(sample_every=5).described())


def test_a_run_from_before_these_settings_is_the_same_run(tmp_path: Path) -> None:
    old = {"settings": changed().model_dump(mode="json")}
    for name in ("sample_every", "sample_prompts", "ema_decay"):
        del old["settings"]["train"][name]
    run = RunFolder(tmp_path / "run")
    check_same_run(run, old, resume=False)
    run.save_state("adapter_1", {"a": torch.zeros(1)})
    check_same_run(run, {"settings": changed().model_dump(mode="json")}, resume=True)
