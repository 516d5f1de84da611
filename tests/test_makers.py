"""The programs in tools/ that make pictures, locales and examples: each can be started, with all that it takes from the
tests' modules.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "tools"
NAMES = [*sorted(path.stem for path in FOLDER.glob("make_*.py")), "example_workflows"]


@pytest.mark.parametrize("name", NAMES)
def test_a_maker_can_be_started(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])  # as when it is run by its path
    assert importlib.import_module(name)
