"""A ComfyUI page in the system's Chromium, by Playwright: open it, load a workflow, run it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .comfyui_server import Server

SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Locale": "en",
    "Comfy.UseNewMenu": "Top",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.Persist": True,
    "LiteGraph.Canvas.MaximumFps": 10,  # without a GPU, idle pages would slow down the run
}
OWN_ERROR = "reading 'id'"
"""Of the pinned front end, at its start."""
OWN_REQUESTS = (
    "https://huggingface.co/Comfy-Org/z_image_turbo/",
    "https://api.comfy.org/comfy-nodes/",
    "https://api.comfy.org/nodes?",
)
"""Of the newest front end: it asks a hub for the models of its default graph, and the registry for a node's pack where
an error is shown. No name of another machine is resolved.
"""


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def seed_settings(folder: Path, **more: object) -> None:
    """Settings of a server that is not started yet: no tutorial, no templates dialog."""
    user = folder / "user" / "default"
    user.mkdir(parents=True, exist_ok=True)
    (user / "comfy.settings.json").write_text(json.dumps({**SETTINGS, **more}), encoding="utf-8")


@contextmanager
def window(width: int = 1600, height: int = 1000) -> Iterator:
    """A Chromium for several pages, which reaches no other machine. Pages share its cache."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield browser.new_context(viewport={"width": width, "height": height})
        browser.close()


@contextmanager
def tab(window, server: Server) -> Iterator:
    """A ready page, as on a first visit. Its `errors`, and `left` (requests to other servers), leave out those of the
    front end itself.
    """
    view = window.new_page()
    view.set_default_timeout(120_000)
    view.errors, view.left = [], []
    view.on("pageerror", lambda e: view.errors.append(e.stack or str(e)) if not str(e).count(OWN_ERROR) else None)
    inside = (server.url, "data:", "blob:", *OWN_REQUESTS)
    view.on("request", lambda r: None if r.url.startswith(inside) else view.left.append(r.url))
    view.goto(f"{server.url}/system_stats")
    view.evaluate("() => { localStorage.clear(); sessionStorage.clear() }")  # workflows that another page left open
    view.goto(server.url)
    view.wait_for_function("window.app?.vueAppReady && window.app.extensionManager", timeout=300_000)
    view.wait_for_function("!!app.extensionManager.workflow.activeWorkflow", timeout=300_000)
    listen(view)
    view.wait_for_timeout(500)
    yield view
    view.close()


def listen(view) -> None:
    """Note the prompts whose end this page heard of. Its own listeners are older than this one, so they come first."""
    view.evaluate(
        """() => {
            window.heard = []
            for (const kind of ["execution_success", "execution_interrupted", "execution_error"])
                app.api.addEventListener(kind, ({ detail }) => window.heard.push(detail.prompt_id))
        }"""
    )


@contextmanager
def page(server: Server, width: int = 1600, height: int = 1000) -> Iterator:
    """A page in a Chromium of its own."""
    with window(width, height) as alone, tab(alone, server) as view:
        yield view


def load(view, workflow: dict) -> None:
    view.evaluate("async (w) => { await app.loadGraphData(w, true, true, null) }", workflow)
    view.wait_for_timeout(800)


def set_widgets(view, values: dict[str, dict[str, object]]) -> None:
    """Widget values by node type."""
    view.evaluate(
        """values => {
            for (const node of app.graph._nodes)
                for (const [name, value] of Object.entries(values[node.type] ?? {})) {
                    const widget = node.widgets.find(w => w.name === name)
                    widget.value = value
                    widget.callback?.(value)
                }
        }""",
        values,
    )


def run(view, server: Server, timeout: float = 600) -> dict:
    """Queue the graph on the canvas as the Run button does; the history entry."""
    with view.expect_response(lambda r: r.url.endswith("/prompt") and r.request.method == "POST") as found:
        view.evaluate("async () => { await app.queuePrompt(0, 1) }")
    answer = found.value.json()
    # With errors in the nodes of one output the other outputs would run.
    assert found.value.status == 200 and not answer["node_errors"], answer
    return finished(view, server, answer["prompt_id"], timeout)


def finished(view, server: Server, prompt_id: str, timeout: float = 600) -> dict:
    """The history entry of a prompt, once the page heard of its end too (the server answers first).

    While it waits, this thread handles the page's requests.
    """
    until = time.monotonic() + timeout
    while not (found := server.get(f"/history/{prompt_id}")):
        assert time.monotonic() < until, f"prompt {prompt_id} did not end in {timeout:g} s: {server.said()[-2000:]}"
        view.wait_for_timeout(200)
    view.wait_for_function("id => window.heard.includes(id)", arg=prompt_id)
    return found[prompt_id]
