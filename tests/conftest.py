"""The surroundings of every test, set before anything imports torch or matplotlib; subprocesses inherit them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# One thread: on models this small the hand-over between threads costs more than it brings, and sums stay in one order.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["MPLBACKEND"] = "Agg"
# A test that would download something fails instead.
os.environ["HF_HUB_OFFLINE"] = "1"

BROWSER = Path(__file__).parent / "browser"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What shares fixtures that are dear to make goes to one worker: the tests of a file, and all that open a browser."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group("browser" if BROWSER in item.path.parents else str(item.path)))
