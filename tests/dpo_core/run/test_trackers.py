"""Tests trackers: names that are refused, what each gets once over resumes, and trackers that fail."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.trackers import NO_TRACKERS, Trackers, check_trackers, flat

tracking = pytest.importorskip("accelerate.tracking")


class Listed(tracking.GeneralTracker):
    """A tracker that lists what it gets."""

    name = "listed"
    requires_logging_directory = False
    got: list[tuple] = []

    def __init__(self, run_name: str, **_: object) -> None:
        super().__init__()
        self.got.append(("project", run_name))

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values: dict) -> None:
        self.got.append(("about", values))

    def log(self, values: dict, step: int | None = None, **_: object) -> None:
        self.got.append((step, values))

    def finish(self) -> None:
        self.got.append(("finish",))


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> type[Listed]:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "listed", Listed)
    monkeypatch.setattr(Listed, "got", [])
    return Listed


def test_names_that_accelerate_does_not_know_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"log_with is 'tensorbord', which accelerate does not know: use one of .*wandb"
    ):
        check_trackers(["tensorbord"])
    with pytest.raises(UserError, match="log_with is 'all'"):
        check_trackers(["all"])


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(UserError, match=r"'tensorboard', but its package is not installed: `pip install tensorboard`"):
        check_trackers(["tensorboard"])


def test_a_tracker_that_a_program_registered_is_known(listed) -> None:
    check_trackers(["listed"])


def test_numbers_are_logged_once_over_resumes(tmp_path: Path, listed) -> None:
    for last in (2, 4):
        trackers = Trackers(RunFolder(tmp_path), ["listed", "listed"], {"train": {"steps": 6, "beta": None}})
        assert not trackers
        with trackers.opened():
            assert trackers
            for step in range(1, last + 1):
                trackers.numbers("train", step, {"train/loss": step / 2})
            trackers.picture("samples", 2, Image.new("RGB", (4, 4)))  # this tracker takes none
        trackers.numbers("train", 9, {"train/loss": 0.0})  # closed
    steps = [entry for entry in listed.got if isinstance(entry[0], int)]
    assert steps == [(step, {"train/loss": step / 2}) for step in (1, 2, 3, 4)]
    assert [entry for entry in listed.got if entry[0] == "about"] == [("about", {"train.steps": 6})]
    assert sum(entry == ("finish",) for entry in listed.got) == 2


def test_kinds_are_counted_apart(tmp_path: Path, listed) -> None:
    trackers = Trackers(RunFolder(tmp_path), ["listed"])
    with trackers.opened():
        trackers.numbers("train", 6, {"a": 1})
        trackers.numbers("held_out", 0, {"b": 1})
        trackers.numbers("held_out", 6, {"b": 2})
        trackers.numbers("train", 5, {"a": 0})
    assert [entry for entry in listed.got if isinstance(entry[0], int)] == [(6, {"a": 1}), (0, {"b": 1}), (6, {"b": 2})]


def test_a_tracker_that_fails_is_left_out_and_catches_up(
    tmp_path: Path, listed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    trackers = Trackers(RunFolder(tmp_path), ["listed"])
    with caplog.at_level(logging.WARNING), trackers.opened():
        trackers.numbers("train", 1, {"a": 1})
        monkeypatch.setattr(listed, "log", fail)
        trackers.numbers("train", 2, {"a": 2})
        trackers.numbers("train", 3, {"a": 3})
        assert not trackers
    assert caplog.text.count("the tracker listed failed") == 1 and "no network" in caplog.text
    assert RunFolder(tmp_path).fact("logged") == {"listed": {"about": 1, "train": 1}}


def test_records_that_cannot_be_written_do_not_end_the_run(
    tmp_path: Path, listed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def locked(*_: object) -> None:
        raise UserError("the records are in use by another program")

    run = RunFolder(tmp_path)
    trackers = Trackers(run, ["listed"])
    with caplog.at_level(logging.WARNING), trackers.opened():
        with monkeypatch.context() as patched:
            patched.setattr(run, "set_fact", locked)
            trackers.numbers("train", 1, {"a": 1})
        assert "a resume may log it twice: the records are in use" in caplog.text
        trackers.numbers("train", 2, {"a": 2})
    assert run.fact("logged") == {"listed": {"about": 1, "train": 2}}


def test_a_tracker_that_does_not_start_is_a_user_error(tmp_path: Path, listed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("api_key not configured")

    monkeypatch.setattr(listed, "start", fail)
    said = r"log_with is 'listed', which does not start \(RuntimeError: api_key not configured\)\. Log in"
    with pytest.raises(UserError, match=said), Trackers(RunFolder(tmp_path), ["listed"]).opened():
        pass


def test_hyperparameters_are_flat() -> None:
    given = {"a": {"b": 1, "c": None, "d": [1, "ö"]}, "e": True, "f": "text"}
    assert flat(given) == {"a.b": 1, "a.d": '[1, "ö"]', "e": True, "f": "text"}


def test_without_names_nothing_is_imported_or_written(tmp_path: Path) -> None:
    program = f"""
import sys
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.trackers import Trackers, check_trackers
check_trackers([])
with Trackers(RunFolder({str(tmp_path)!r}), []).opened():
    pass
print(sorted(set(sys.modules) & {{"accelerate", "tensorboard", "wandb"}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert RunFolder(tmp_path).fact("logged") is None and not NO_TRACKERS


def test_tensorboard_files_hold_numbers_pictures_and_hyperparameters(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    trackers = Trackers(RunFolder(tmp_path), ["tensorboard"], {"train": {"steps": 6}})
    with trackers.opened():
        trackers.numbers("train", 1, {"train/loss": 0.5})
        trackers.picture("samples", 1, picture)
    folder = tmp_path / "logs" / "dreambooth_dpo"
    found = events.EventAccumulator(str(folder)).Reload()
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(1, 0.5)]
    tags = found.Tags()["images"]
    assert len(tags) == 1 and (found.Images(tags[0])[0].width, found.Images(tags[0])[0].step) == (4, 1)
    assert "train.steps: 6" in next(folder.glob("*/hparams.yml")).read_text(encoding="utf-8")
