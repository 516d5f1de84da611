"""The crash test: what its model of a power loss takes away, when it kills, and three kills of a real run."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import pytest

from dreambooth_dpo.benchmarks.crash.__main__ import arguments, crash
from dreambooth_dpo.benchmarks.crash.disk import events, flushed_contents, lose_power, record, unflushed_names
from dreambooth_dpo.benchmarks.crash.moments import moments
from dreambooth_dpo.dpo_core.run.files import atomic_path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/fd, and forks")


def recorded(tmp_path: Path, work) -> tuple[Path, list[dict]]:
    """Do `work(run)` in a forked process that records its flushes; returns the run folder and the journal's events."""
    run, shelf, journal = tmp_path / "run", tmp_path / "shelf", tmp_path / "journal"
    run.mkdir(exist_ok=True)
    shelf.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        try:
            record(os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), shelf)
            work(run)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return run, events(journal)


def test_a_file_written_by_atomic_path_survives_with_its_new_folders(tmp_path):
    def work(run: Path) -> None:
        with atomic_path(run / "new" / "deep" / "a.txt") as beside:
            beside.write_text("whole")

    run, told = recorded(tmp_path, work)
    assert [e["what"] for e in told] == ["name", "folder", "name", "folder", "content", "name", "folder"]
    assert lose_power(run, told) == [] and (run / "new" / "deep" / "a.txt").read_text() == "whole"


def test_what_was_not_flushed_is_lost(tmp_path):
    """A plain write keeps half of its content, a folder that was only made is gone, a rename alone is undone."""

    def work(run: Path) -> None:
        (run / "plain.txt").write_text("0123456789")
        with atomic_path(run / "replaced.txt") as beside:
            beside.write_text("old")
        (run / "folder").mkdir()  # after the last flush of `run`
        (run / "beside").write_text("new")
        with open(run / "beside", "r+") as file:
            os.fsync(file.fileno())
        os.replace(run / "beside", run / "replaced.txt")

    run, told = recorded(tmp_path, work)
    assert sorted(lose_power(run, told)) == ["folder", "plain.txt", "replaced.txt"]
    assert (run / "plain.txt").read_text() == "01234" and not (run / "folder").exists()
    assert (run / "replaced.txt").read_text() == "old"


def test_a_flush_covers_the_names_before_it_in_that_folder_alone():
    told = [
        {"what": "name", "path": "/r/a", "before": ""},
        {"what": "name", "path": "/r/s/b", "before": "/shelf/1"},
        {"what": "folder", "path": "/r"},
        {"what": "name", "path": "/r/c", "before": ""},
        {"what": "content", "inode": 7, "written": 9},
    ]
    assert unflushed_names(told) == {"/r/s/b": "/shelf/1", "/r/c": ""}
    assert flushed_contents(told) == {(7, 9)}


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    (tmp_path / "journal").write_text(json.dumps({"what": "folder", "path": "/r"}) + '\n{"what": "na')
    assert events(tmp_path / "journal") == [{"what": "folder", "path": "/r"}]
    assert events(tmp_path / "none") == []


def test_moments_lie_in_what_is_left_of_the_run():
    drawn = [moments(random.Random(seed), 5, 10.0) for seed in range(50)]
    assert all(0 <= m <= 10 for found in drawn for m in found) and all(len(found) == 5 for found in drawn)
    assert moments(random.Random(3), 5, 10.0) == moments(random.Random(3), 5, 10.0)
    assert sum(max(found[1:]) for found in drawn) / 50 < 9


def test_options():
    args = arguments([])
    assert (args.kills, args.seed, args.out) == (100, 0, Path("runs/crash"))


@pytest.mark.slow
def test_three_kills_change_nothing(tmp_path):
    found = crash(tmp_path, kills=3, seed=1, most=2)
    assert found["kills"] == 3 and found["wrong"] == [] and found["equal"] == found["folders"] >= 2
    assert found["of_them_with_power_loss"] >= 1
