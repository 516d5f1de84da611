"""Tests that the programs in tools/ can be imported with everything they use from the tests' support modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "tools"
NAMES = [*sorted(path.stem for path in FOLDER.glob("make_*.py")), "example_workflows"]


@pytest.mark.parametrize("name", NAMES)
def test_tool_can_be_imported(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])  # as when it is run by its path
    assert importlib.import_module(name)


def test_the_page_of_family_settings_is_up_to_date(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    made = importlib.import_module("make_family_table")
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run: python tools/make_family_table.py"
