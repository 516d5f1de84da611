"""Tests which settings may change when a run is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from chunks import chunk
from loops import SETTINGS

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.same_run import changes, check_same_run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "läuft")


DESCRIBED = {"settings": SETTINGS.model_dump(mode="json"), "model": "abc", "prompts": [["a"], ["b"]]}


def test_changes_are_named_with_both_values() -> None:
    new = {**DESCRIBED, "settings": {**DESCRIBED["settings"], "rounds": 5}, "prompts": [["a" * 100], ["b"]]}
    found = changes(DESCRIBED, new)
    assert found["settings.rounds"] == (2, 5)
    assert set(found) == {"settings.rounds", "prompts"} and len(str(found["prompts"][1])) == 60
    assert changes(DESCRIBED, DESCRIBED) == {}


def test_an_existing_run_needs_resume(run: RunFolder) -> None:
    check_same_run(run, DESCRIBED, resume=False)
    with pytest.raises(UserError, match=r"already holds this run.*--resume"):
        check_same_run(run, DESCRIBED, resume=False)
    check_same_run(run, DESCRIBED, resume=True)


def test_other_settings_are_refused_by_name(run: RunFolder) -> None:
    check_same_run(run, DESCRIBED, resume=False)
    other = {**DESCRIBED, "model": "def", "settings": {**DESCRIBED["settings"], "rounds": 1}}
    for resume in (True, False):
        with pytest.raises(
            UserError, match=r"model was 'abc', is 'def'; settings\.rounds was 2, is 1.*another output folder"
        ):
            check_same_run(run, other, resume)
    check_same_run(run, DESCRIBED, resume=True)


def test_more_rounds_and_other_early_stopping_are_allowed(run: RunFolder) -> None:
    check_same_run(run, DESCRIBED, resume=False)
    more = {**DESCRIBED, "settings": {**DESCRIBED["settings"], "rounds": 7, "stop": {"rule": "last"}}}
    check_same_run(run, more, resume=True)
    assert run.fact("described") == more


def test_pair_and_training_settings_may_change_until_something_is_trained(run: RunFolder) -> None:
    """The remedy of "no pair fits the window" is to widen it, so the same folder must accept the wider one."""
    wider = {
        **DESCRIBED,
        "settings": {**DESCRIBED["settings"], "pairs": {**DESCRIBED["settings"]["pairs"], "angle_low": -20.0}},
    }
    check_same_run(run, DESCRIBED, resume=False)
    check_same_run(run, wider, resume=True)
    assert run.fact("described") == wider
    run.save_state("adapter_1", {"x": torch.zeros(1)})
    with pytest.raises(UserError, match=r"settings\.pairs\.angle_low was -20\.0, is -10\.0"):
        check_same_run(run, DESCRIBED, resume=True)


def test_precision_may_not_change_once_there_are_candidates(run: RunFolder) -> None:
    """Precision affects the candidates: a set half in bf16 would be another set."""
    other = {
        **DESCRIBED,
        "settings": {**DESCRIBED["settings"], "train": {**DESCRIBED["settings"]["train"], "precision": "bf16"}},
    }
    check_same_run(run, DESCRIBED, resume=False)
    check_same_run(run, other, resume=True)
    check_same_run(run, DESCRIBED, resume=True)
    run.add_chunk("round_0", *chunk(0))
    with pytest.raises(UserError, match=r"settings\.train\.precision was 'fp32', is 'bf16'"):
        check_same_run(run, other, resume=True)
