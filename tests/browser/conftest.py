"""What browser tests need: a ComfyUI to start, a Chromium, and playwright.

Each test runs on every front end, but for those that say by the marker `front_ends` on which it makes a difference, and
why.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from browsing import FRONT_ENDS, chromium, seed_settings, tab, window
from hosting import Server, comfyui_path
from hosts import NEWEST_FRONT_END
from hosts import front_end as newest_front_end

HERE = Path(__file__).resolve().parent


@pytest.hookimpl(tryfirst=True)  # before -m selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # those of the whole run, not of this folder alone
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--front-ends").split(",")
        marker = metafunc.definition.get_closest_marker("front_ends")
        wanted = marker.args if marker else FRONT_ENDS
        metafunc.parametrize(
            "server", [name for name in FRONT_ENDS if name in chosen and name in wanted], indirect=True, scope="session"
        )


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory):
    """A ComfyUI with the pack, for pages to open; one for each front end, one after the other."""
    missing = {
        f"ComfyUI in {comfyui_path()} (set COMFYUI_PATH)": not (comfyui_path() / "main.py").is_file(),
        "Chromium (install your system's package)": chromium() is None,
        "playwright (pip install playwright)": importlib.util.find_spec("playwright") is None,
    }
    if any(missing.values()):
        pytest.skip("browser tests need " + " and ".join(name for name, gone in missing.items() if gone))
    front_end = FRONT_ENDS[request.param]
    if front_end.arguments and not newest_front_end().is_dir():
        pytest.skip(f"front end {NEWEST_FRONT_END} is not there: python tools/hosts.py installs it")
    folder = tmp_path_factory.mktemp(request.param)
    seed_settings(folder, **front_end.settings)
    with Server(folder, *front_end.arguments) as running:
        yield running


@pytest.fixture(scope="session")
def browser(server: Server):
    """A Chromium for all pages of a server."""
    with window() as opened:
        yield opened


@pytest.fixture
def view(server: Server, browser):
    """A page that ends with no error of its own, and asked nothing of another machine."""
    with tab(browser, server) as opened:
        yield opened
        assert not opened.errors
        assert not opened.left
