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
