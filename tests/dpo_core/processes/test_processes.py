"""Tests a run on several processes: the same numbers as alone, errors that reach all, kills, resume by another number.

Every case starts real processes that talk by gloo.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from loops import DRAFTED, adapters, changed, difference, make_loop, outcome
from process_loops import Launch

from dreambooth_dpo.dpo_core.crew import ALONE, Crew, waves
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import LoopSettings

ROUNDING = 1e-5
"""Of the adapter's change, where every pair is computed alone and only the order of a sum differs."""
BATCHES = 2e-3
"""The same where forwards hold other numbers of pairs: AdamW at the rate of 0.01 enlarges their rounding (float32)."""
TRAIN = {"batch_size": 4, "accumulation": 1, "steps": 6}
CASES = {
    "dpo": changed(train=TRAIN),
    "cache, accumulation": changed(train={**TRAIN, "batch_size": 2, "accumulation": 3, "reference_bank": 2}),
    "auto-beta": changed(train={**TRAIN, "auto_beta": "on"}),
    "kto": changed(train={**TRAIN, "objective": "kto"}),
    "groups": changed(train={**TRAIN, "objective": "dgpo", "reference_bank": 2}),
    "low memory": changed(train={**TRAIN, "memory": "low"}),
    "drafts": DRAFTED.model_copy(update={"train": DRAFTED.train.model_copy(update={"batch_size": 4})}),
}


def apart(one: RunFolder, other: RunFolder, rounds: int = 2) -> float:
    """Largest relative distance of two runs' adapters: norm of the difference, of the first one's change."""
    found = []
    for ours, theirs in zip(adapters(one, rounds)[1:], adapters(other, rounds)[1:], strict=True):
        start = adapters(one, rounds)[0]
        change = math.sqrt(sum(float((ours[k] - start[k]).square().sum()) for k in ours))
        found.append(math.sqrt(sum(float((ours[k] - theirs[k]).square().sum()) for k in ours)) / change)
    return max(found)


def stages(run: RunFolder) -> dict:
    """What does not depend on rounding of gradients: the first round's candidates, scores and pairs."""
    found = outcome(run)
    first = [key for key in found["scores"] if key[0] in ("round_0", "evaluation_0")]
    return {
        "candidates": found["candidates"],
        "scores": {key: found["scores"][key] for key in first},
        "pairs": found["pairs"][0],
        "latents": run.latents("round_0").tolist(),
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """By case: a run of one process, started as the others are: the number of threads changes rounding."""
    runs: dict[str, RunFolder] = {}

    def run(case: str) -> RunFolder:
        if case not in runs:
            folder = tmp_path_factory.mktemp("alone") / "run"
            assert Launch(folder, 1, CASES[case]).wait()[0][0] == 0
            runs[case] = RunFolder(folder)
        return runs[case]

    return run


SLOW = ("auto-beta", "drafts", "cache, accumulation", "kto", "groups", "low memory")
"""Cases that `-m slow` runs: what they add to the others is decided in one process, or takes the same sums."""
_SIZES = [pytest.param(case, 2, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES]


@pytest.mark.parametrize(("case", "size"), [*_SIZES, pytest.param("dpo", 4, marks=pytest.mark.slow)])
def test_any_number_of_processes_gives_the_same_run(alone, tmp_path: Path, case: str, size: int) -> None:
    assert [code for code, _ in Launch(tmp_path / "größe", size, CASES[case]).wait()] == [0] * size
    run = RunFolder(tmp_path / "größe")
    assert stages(run) == stages(alone(case))
    assert apart(alone(case), run) < (ROUNDING if case == "low memory" else BATCHES)
    for round_index in (0, 1):
        theirs = alone(case).training(round_index)
        for mine, other in zip(run.training(round_index), theirs, strict=True):
            assert mine == pytest.approx(other, rel=1e-2, abs=1e-4)


def test_sample_grids_average_and_trackers_of_two_processes(tmp_path: Path) -> None:
    """The leader draws and logs while the other waits; training gives the same numbers as without, bit for bit."""
    pytest.importorskip("tensorboard")
    train = {**TRAIN, "ema_decay": 0.5, "log_every": 5}
    given = {"plain": (changed(train=train), ""), "shown": (changed(train={**train, "sample_every": 2}), "log")}
    for name, (settings, trouble) in given.items():
        assert [code for code, _ in Launch(tmp_path / name, 2, settings, trouble).wait()] == [0, 0]
    plain, shown = (RunFolder(tmp_path / name) for name in given)
    assert outcome(plain) == outcome(shown)
    assert max(map(difference, adapters(plain), adapters(shown))) == 0
    grids = {p.relative_to(shown.path).as_posix() for p in shown.path.glob("round_*/samples/*.png")}
    assert grids == {f"round_{r}/samples/step_{step:06d}.png" for r in (0, 1) for step in (2, 4, 6)}
    assert shown.fact("logged") == {"tensorboard": {"about": 1, "train": 12, "held_out": 12, "samples": 12}}
    assert len(list((shown.path / "logs" / "dreambooth_dpo").glob("events.*"))) == 1


def test_a_run_of_two_processes_is_resumed_by_three_and_by_one(alone, tmp_path: Path) -> None:
    """The first process, then the second one, is killed after some progress; the other one says so."""
    folder, settings = tmp_path / "run", CASES["dpo"]
    first = Launch(folder, 2, settings, "slow")
    first.kill(1, 9)
    (code, said), (killed, _) = first.wait()
    assert killed < 0 and code == 3
    assert "another process of this run has ended" in said and "start the run again with --resume" in said
    second = Launch(folder, 3, settings, "slow")
    second.kill(0, 8)
    ended = second.wait()
    assert ended[0][0] < 0 and {code for code, _ in ended[1:]} == {3}
    assert make_loop(folder, settings=settings).go() == 2
    assert stages(RunFolder(folder)) == stages(alone("dpo"))
    assert apart(alone("dpo"), RunFolder(folder)) < BATCHES


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_kills_at_random_moments_change_nothing(alone, tmp_path: Path, seed: int) -> None:
    """Four kills of a folder, of either of two processes, then one run to the end; five folders make twenty kills."""
    draw, folder, settings = random.Random(seed), tmp_path / "run", CASES["dpo"]
    for _ in range(4):
        launch = Launch(folder, 2, settings, "slow")
        killed = launch.kill(draw.randrange(2), draw.randrange(1, 12), draw.uniform(0, 0.1))
        ended = launch.wait()
        assert killed and {code for code, _ in ended} <= {-9, 3}, ended
    assert [code for code, _ in Launch(folder, 2, settings).wait()] == [0, 0]
    assert stages(RunFolder(folder)) == stages(alone("dpo"))
    assert apart(alone("dpo"), RunFolder(folder)) < BATCHES


def test_an_error_in_another_process_ends_the_run_with_its_words(tmp_path: Path) -> None:
    settings = changed(sampling={"candidates_per_prompt": 40})  # two blocks to score
    (code, said), (other, _) = Launch(tmp_path / "run", 2, settings, "scorer").wait()
    assert code == 2 and other == 0 and "the scorer of the last process is broken" in said


def test_an_unexpected_error_of_the_first_process_ends_the_others(tmp_path: Path) -> None:
    (code, said), (other, theirs) = Launch(tmp_path / "run", 2, CASES["dpo"], "disk").wait()
    assert code == 1 and "OSError: no space left" in said
    assert other == 3 and "another process of this run has ended" in theirs


def test_an_unexpected_error_of_another_process_in_training_is_told_by_the_first(tmp_path: Path) -> None:
    (code, said), (other, theirs) = Launch(tmp_path / "run", 2, CASES["dpo"], "training").wait()
    assert code == 2 and "process 1 of this run failed: ValueError: no such layer" in said
    assert other == 0 and "Traceback" in theirs and "no such layer" in theirs


def test_records_that_cannot_be_saved_end_all_processes(tmp_path: Path) -> None:
    """The leader alone saves; the other process does not wait for a step that never comes."""
    (code, said), (other, _) = Launch(tmp_path / "run", 2, CASES["dpo"], "locked").wait()
    assert (code, other) == (2, 0) and "the database is locked" in said


def test_one_process_out_of_memory_lowers_the_level_of_all(alone, tmp_path: Path) -> None:
    assert [code for code, _ in Launch(tmp_path / "run", 2, CASES["dpo"], "memory").wait()] == [0, 0]
    run = RunFolder(tmp_path / "run")
    assert run.fact("memory") != "fast"
    assert apart(alone("dpo"), run) < BATCHES


def test_more_processes_than_pairs_of_a_step_are_refused(tmp_path: Path) -> None:
    ended = Launch(tmp_path / "run", 3, changed(train={"batch_size": 2, "accumulation": 1})).wait()
    assert ended[0][0] == 2
    assert "a step has 2 pairs (train.batch_size 2 x accumulation 1), and 3 processes cannot share them" in ended[0][1]


# --- one process ---


def test_shares_cover_every_pair_once() -> None:
    class Other(Crew):
        def __init__(self, rank: int, size: int) -> None:
            self.rank, self.size = rank, size

    for pairs in (1, 4, 7, 16):
        for size in range(1, pairs + 1):
            shares = [Other(rank, size).shares(pairs) for rank in range(size)]
            assert [p for first, last in shares for p in range(first, last)] == list(range(pairs))
            assert max(b - a for a, b in shares) - min(b - a for a, b in shares) <= 1


def test_alone_all_is_done_here() -> None:
    assert list(ALONE.draw([1, 2], None, lambda n: n + 1)) == [2, 3]
    assert list(waves(range(5), 2)) == [[0, 1], [2, 3], [4]]
    with pytest.raises(UserError, match="x"):
        ALONE.once(lambda: (_ for _ in ()).throw(UserError("x")))
    tensor = torch.ones(2)
    ALONE.sum([tensor])
    assert tensor.tolist() == [1, 1] and ALONE.together(lambda: 3) == 3
    assert isinstance(CASES["dpo"], LoopSettings)
