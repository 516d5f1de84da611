"""Options and result files of the benchmarks' commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreambooth_dpo.benchmarks.common.command import command_parser, parse_names, parse_numbers, write_result


def test_numbers_and_ranges():
    assert parse_numbers("0-4,7") == [0, 1, 2, 3, 4, 7]
    assert parse_numbers("3") == [3] and parse_numbers("") == []


def test_options_are_those_that_a_command_has():
    args = command_parser("about", "somewhere", "5-7", jobs=True).parse_args([])
    assert args.concepts == [5, 6, 7] and args.out == Path("runs/somewhere") and args.jobs >= 1
    assert set(vars(command_parser("about", "somewhere").parse_args([]))) == {"out"}


def test_an_unknown_name_ends_the_command(capsys):
    parser = command_parser("about", "somewhere")
    assert parse_names(parser, "a;b", ["a", "b"], "row", ";") == ["a", "b"]
    with pytest.raises(SystemExit):
        parse_names(parser, "a,c", {"a": 1, "b": 2}, "row")
    assert "no row 'c'; rows are a, b" in capsys.readouterr().err


def test_a_result_is_written_and_named(tmp_path: Path, capsys):
    write_result(tmp_path / "rows.json", {"a": 1}, "rows.png")
    assert json.loads((tmp_path / "rows.json").read_text(encoding="utf-8")) == {"a": 1}
    assert capsys.readouterr().out == f"wrote {tmp_path / 'rows.json'} and rows.png\n"
