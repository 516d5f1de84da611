"""The memory benchmark: its tables, its options, and its models' data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreambooth_dpo.benchmarks import memory
from dreambooth_dpo.benchmarks.memory.__main__ import MODELS, arguments
from dreambooth_dpo.benchmarks.memory.tables import check_lines, columns, lines, markdown
from dreambooth_dpo.dpo_core.training.memory.levels import LEVELS


def row(level: str, pairs: int, peak: float) -> dict:
    about = {"model": "sd15", "weights": "bf16", "side": 512, "weights_bytes": 1.72e9}
    return about | {"pairs": pairs, "level": level, "peak_bytes": peak}


def test_one_line_for_each_case() -> None:
    """Levels side by side; sampling, which has no pairs, in every line; a level that was not run stays empty."""
    rows = [row("fast", 1, 4.78e9), row("low", 1, 2.72e9), row("fast", 2, 7.84e9), row("sampling", 0, 2.05e9)]
    levels = ("fast", "low")
    assert lines(rows, levels) == [
        ["sd15", "bf16", "512", "1", "1.7", "4.8", "2.7", "2.0"],
        ["sd15", "bf16", "512", "2", "1.7", "7.8", "", "2.0"],
    ]
    text = markdown(rows, levels).splitlines()
    assert text[0] == "| " + " | ".join(columns(levels)) + " |" and len(text) == 4
    assert all(line.count("|") == text[0].count("|") for line in text)


def test_a_check_shows_the_ratio() -> None:
    found = {
        "predicted_bytes": 6.99e9, "live_bytes": 7e9, "ratio": 6.99 / 7,
        "resident_added": 4e9, "predicted_added": 3.5e9,
    }  # fmt: skip
    assert check_lines([row("fast", 1, 0) | found]) == [
        ["sd15", "bf16", "512", "1", "fast", "6.99", "7.00", "0.999", "4.00", "3.50"]
    ]


def test_options() -> None:
    args = arguments(["--only", "sdxl,flux", "--sides", "512", "--check", "sd15:fp32:512:1,sdxl:bf16:512:2"])
    assert args.only == ["sdxl", "flux"] and args.sides == [512] and args.pairs == [1, 2, 4]
    assert args.levels == list(LEVELS)
    assert args.check == [("sd15", "fp32", 512, 1), ("sdxl", "bf16", 512, 2)]


@pytest.mark.parametrize("wrong", [["--only", "sd9"], ["--check", "sd15:fp32"], ["--check", "sd15:fp3:512:1"]])
def test_wrong_options_are_refused(wrong: list[str], capsys) -> None:
    with pytest.raises(SystemExit):
        arguments(wrong)
    assert "sd9" in capsys.readouterr().err or "--check" in str(wrong)


def test_every_model_names_its_source() -> None:
    file = Path(memory.__file__).with_name("models.json")
    models = json.loads(file.read_text(encoding="utf-8"))
    assert tuple(models) == MODELS
    assert all(m["source"] and m["parameters"] > 1e8 and ("unet" in m) != ("config" in m) for m in models.values())
