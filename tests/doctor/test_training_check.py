"""Tests the training self-check on a tiny model, and its messages about levels that fail."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from dreambooth_dpo.doctor import full_size, probe, training_findings
from dreambooth_dpo.doctor.findings import FAILED, OK, WARNING
from dreambooth_dpo.doctor.full_size import lacking, measure
from dreambooth_dpo.doctor.in_diffusers import TINY_SIDE, tiny_pipeline
from dreambooth_dpo.doctor.in_diffusers import _subject as subject_of
from dreambooth_dpo.doctor.training_check import Level, difference, limit_of, train_levels
from dreambooth_dpo.doctor.training_findings import full_finding, guarded, self_check_findings
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.training.memory.levels import LEVELS

ONE = {"a.down": torch.tensor([3.0, 4.0]), "a.up": torch.tensor([1.0])}


def levels(**changes: object) -> list[Level]:
    return [Level("fast", True, 1.0, 10, ONE, 0.001), replace(Level("low", True, 2.0, 9, ONE, 0.002), **changes)]


@pytest.fixture(scope="module")
def subject():
    return subject_of(tiny_pipeline("sd15", "cpu"), TINY_SIDE // 2)


def test_all_levels_of_a_tiny_model_train_alike(subject) -> None:
    found = list(train_levels(subject, 1, 2, test=True))
    assert [level.name for level in found] == list(LEVELS) and all(level.fits for level in found)
    assert all(level.self_test < 0.02 and level.seconds > 0 and level.peak > 1e8 for level in found)
    assert all(any(g.any() for g in level.gradients.values()) for level in found)
    lines = self_check_findings("tiny", found, limit_of(subject.model))
    assert [f.status for f in lines] == [OK, OK] and lines[1].data["largest_difference"] < 1e-4


def test_level_out_of_memory_is_reported(subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(subject.model, "predict", full)
        found = list(train_levels(subject, 1, 1, test=False))
    assert [level.fits for level in found] == [False] * len(LEVELS)
    line = self_check_findings("tiny", found, 1e-3)[0]
    assert line.status == FAILED and "ran out of memory" in line.said and "close other programs" in line.remedy


def test_different_gradients_fail() -> None:
    other = {**ONE, "a.down": torch.tensor([3.0, 4.5])}
    assert difference(ONE, other) == pytest.approx(0.1)
    line = self_check_findings("tiny", levels(gradients=other), 1e-3)[1]
    assert line.status == FAILED and "within 1.0e-01" in line.said and "memory level fast" in line.remedy


def test_difference_of_nan_or_other_layers_is_infinite() -> None:
    nan = {**ONE, "a.up": torch.tensor([float("nan")])}
    assert difference(ONE, nan) == difference(nan, ONE) == difference(ONE, {"a.up": ONE["a.up"]}) == float("inf")
    line = self_check_findings("tiny", levels(gradients=nan), 1e-3)[1]
    json.dumps(asdict(line), allow_nan=False)
    assert line.status == FAILED and line.data["largest_difference"] is None


def test_gradient_of_rounding_noise_is_compared_with_the_whole() -> None:
    """The whole gradient's norm is 5.1, so the floor is 5.1e-4.

    A difference of 2e-7 then counts as 4e-4, and a difference of 1e-3 shows.
    """
    one, other = ({**ONE, "b.up": torch.tensor([sign * 1e-7])} for sign in (1, -1))
    assert difference(one, other) == pytest.approx(2e-7 / (1e-4 * 26**0.5), rel=1e-3)
    assert difference(one, {**ONE, "b.up": torch.tensor([1e-3])}) > 1


def test_level_that_does_not_fit_is_a_warning_while_a_smaller_one_remains() -> None:
    level = Level("fast", False)
    assert full_finding("SDXL", level, None, 1e-3, {}, smaller=True).status == WARNING
    last = full_finding("SDXL", level, None, 1e-3, {}, smaller=False)
    assert last.status == FAILED and "does not fit into memory" in last.said and "larger GPU" in last.remedy


def test_line_of_a_level_has_seconds_peak_and_difference() -> None:
    line = full_finding("SDXL", Level("low", True, 1.5, int(7e9), ONE), 2e-7, 1e-3, {"pixels": 128}, False)
    assert (
        line.status == OK
        and line.said == "SDXL, low: 1.50 s a step, peak 7.0 GB, gradients within 2.0e-07 of the first level's"
    )
    assert line.data["pixels"] == 128 and line.data["peak_bytes"] == 7e9
    assert full_finding("SDXL", Level("low", True, 1.5, 1, ONE), 0.1, 1e-3, {}, False).status == FAILED


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        (UserError("the model does not fit. Take a smaller one."), "the model does not fit", "Take a smaller one."),
        (UserError("this is 0.3.50: update ComfyUI."), "this is 0.3.50", "update ComfyUI."),
        (KeyError("w"), "KeyError: 'w' (", "report it"),
        (torch.OutOfMemoryError("full"), "OutOfMemoryError: full", "close other programs that use memory"),
    ],
)
def test_errors_become_failed_lines(error: Exception, said: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(training_findings, "say", lambda kind, value: told.append(value))

    def work() -> None:
        raise error

    assert guarded("training", work) is None
    assert told[0].status == FAILED and told[0].said.startswith(said) and remedy in told[0].remedy


def test_full_size_measures_each_level_and_compares_ways(
    subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = []
    monkeypatch.setattr(full_size, "say", lambda kind, value: told.append((kind, value)))
    measure(subject, "sd15", "one way", tmp_path)
    measure(subject, "sd15", "another way", tmp_path)
    lines = [value for kind, value in told if kind == "finding"]
    assert [(line.data["way"], line.data["level"]) for line in lines] == [
        (w, n) for w in ("one way", "another way") for n in LEVELS
    ]
    assert lines[0].data["difference"] is None and all(line.data["difference"] < 1e-4 for line in lines[1:])
    assert all(line.status == OK for line in lines)


def test_model_is_skipped_on_a_machine_that_is_too_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "main_memory", lambda: (9e9, 24e9))
    assert lacking("sd15", "cpu", None) is None
    line = lacking("sdxl", "cpu", None)
    assert (
        line.status == WARNING
        and "SDXL is skipped: it needs 16 GB of free main memory, but only 9.0 GB are free" in line.said
    )
    monkeypatch.setattr(full_size.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e9}))
    line = lacking("sd15", "cpu", tmp_path)
    assert "its file takes 2.0 GB" in line.said and "TMPDIR" in line.remedy
