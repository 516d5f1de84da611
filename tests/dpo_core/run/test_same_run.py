"""Tests which settings may change when a run is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from chunks import chunk
from loops import SETTINGS

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.same_run import changes, check_same_run, known_changes


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


PARTS = {
    "scheduler": {"class": "DDIM", "beta_start": 0.1},
    "tokenizer": {"vocabulary": "ab"},
    "unet": {"weights": "cd"},
}


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("scheduler", "class", "PNDM", r"model_parts\.scheduler\.class was 'DDIM', is 'PNDM'"),
        ("scheduler", "beta_start", 0.2, r"model_parts\.scheduler\.beta_start was 0\.1, is 0\.2"),
        ("tokenizer", "vocabulary", "ef", r"model_parts\.tokenizer\.vocabulary was 'ab', is 'ef'"),
        ("unet", "weights", "ef", r"model_parts\.unet\.weights was 'cd', is 'ef'"),
    ],
)
def test_a_changed_part_of_the_model_is_refused_by_name(run: RunFolder, part, key, value, said) -> None:
    check_same_run(run, {**DESCRIBED, "model_parts": PARTS}, resume=False)
    other = {**PARTS, part: {**PARTS[part], key: value}}
    with pytest.raises(UserError, match=said):
        check_same_run(run, {**DESCRIBED, "model_parts": other}, resume=True)
    check_same_run(run, {**DESCRIBED, "model_parts": PARTS}, resume=True)


def test_a_run_from_before_the_parts_were_recorded_is_continued_and_records_them(run: RunFolder) -> None:
    check_same_run(run, DESCRIBED, resume=False)
    check_same_run(run, {**DESCRIBED, "model_parts": PARTS}, resume=True)
    changed = {**PARTS, "tokenizer": {"vocabulary": "ef"}}
    with pytest.raises(UserError, match=r"model_parts\.tokenizer\.vocabulary"):
        check_same_run(run, {**DESCRIBED, "model_parts": changed}, resume=True)


def test_settings_that_one_version_of_a_library_does_not_record_are_no_change() -> None:
    """Only of the model's parts; another key that comes or goes is a change, such as the LoRA of `evaluate`."""
    more = {**PARTS, "scheduler": {**PARTS["scheduler"], "new_setting": None}}
    old, new = {**DESCRIBED, "model_parts": PARTS}, {**DESCRIBED, "model_parts": more}
    assert known_changes(old, new) == {} == known_changes(new, old)
    assert known_changes(old, {**old, "lora": "ab"}) == {"lora": (None, "ab")}
