"""The fuzz test of the doors: fifty inputs, what it has found, and that a seed repeats its inputs."""

from __future__ import annotations

import json
import re
import warnings

import pytest
import torch
from safetensors.torch import save

from dreambooth_dpo.benchmarks.inputs import __main__ as command
from dreambooth_dpo.benchmarks.inputs.doors import DOORS, Door, enter
from dreambooth_dpo.benchmarks.inputs.strategies import FIELDS, strength_texts
from dreambooth_dpo.dpo_core.errors import UserError


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_fifty_inputs_end_in_success_or_an_error_of_the_pack():
    found = command.fuzz([name for name in DOORS if name != "lora"], 50, seed=7)
    assert sum(of["inputs"] for of in found.values()) >= 49
    assert [of["broken"] for of in found.values()] == [[]] * 5
    assert sum(of["taken"] for of in found.values()) and sum(of["refused"] for of in found.values())


def test_every_setting_of_a_config_is_changed():
    assert ("train", "steps") in FIELDS and ("model", "lora_strength") in FIELDS and ("output",) in FIELDS
    assert len(FIELDS) > 80


def test_another_error_is_found_and_its_seed_repeats_it(monkeypatch, tmp_path, capsys):
    def door(text: str, _folder) -> None:
        if len(text) > 6:
            raise KeyError(text)
        raise UserError("no")

    monkeypatch.setitem(DOORS, "strengths", Door(door, strength_texts, 1.0))
    assert command.main(["--count", "40", "--seed", "3", "--only", "strengths", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "--seed 3 --only strengths, input" in said and "KeyError" in said
    first = json.loads((tmp_path / "inputs.json").read_text(encoding="utf-8"))
    found = first["doors"]["strengths"]
    assert found["inputs"] == 40 and found["refused"] + len(found["broken"]) == 40 and first["broken"] > 0
    assert command.feed("strengths", 40, 3) == found


def test_success_is_none(tmp_path):
    assert enter(DOORS["strengths"], "0, 0.5") is None
    assert isinstance(enter(DOORS["strengths"], "x"), UserError)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"down": (4, 64), "up": (64, 4), "alpha": (32, 4)}, r"alpha holds .* \(shape \[32, 4\]\), but alpha is"),
        ({"down": (), "up": ()}, r"matrices of the shapes \[\] \(down\) and \[\] \(up\)"),
    ],
)
def test_what_the_fuzz_test_found_is_refused(tensors, said):
    """An alpha of many values and matrices without dimensions came out as ValueError and TypeError."""
    parts = {"down": "lora_down.weight", "up": "lora_up.weight", "alpha": "alpha"}
    data = save({f"lora_unet_mid_block_attentions_0_proj_in.{parts[k]}": torch.ones(v) for k, v in tensors.items()})
    error = enter(DOORS["lora"], ("a.safetensors", data))
    assert isinstance(error, UserError) and re.search(said, str(error))
