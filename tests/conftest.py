"""The surroundings of every test, set before anything imports torch or matplotlib; subprocesses inherit them."""

from __future__ import annotations

import os

import pytest

# One thread: on models this small the hand-over between threads costs more than it brings, and sums stay in one order.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["MPLBACKEND"] = "Agg"
# A test that would download something fails instead.
os.environ["HF_HUB_OFFLINE"] = "1"

BROWSER = "tests/browser/"
FRONT_ENDS = ("pinned", "newest", "nodes2")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--front-ends",
        default="pinned,nodes2",
        help="front ends that the browser tests open, by commas: pinned, newest (on the canvas), nodes2 (newest, HTML)",
    )


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's, which need not be there
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """What shares fixtures that are dear to make stays in one process: the tests of a file, and all that open one front
    end.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            opened = next((name for name in FRONT_ENDS if f"[{name}" in test), "")
            return BROWSER + opened if file.startswith(BROWSER) else file

    return ByFile(config, log)
