"""A ComfyUI page in the system's Chromium, through Playwright: load a workflow, run it, look at it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hosting import Server
from hosts import front_end
from PIL import Image
from workflows import FOLDER

SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Locale": "en",
    "Comfy.UseNewMenu": "Top",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.Persist": True,
    "LiteGraph.Canvas.MaximumFps": 10,  # without a GPU, pages that only wait would take the cores from the run
}
# The pinned front end throws this error itself at start.
OWN_ERRORS = ("reading 'id'",)
# At start the newest one requests the models of its default graph from a hub, and a node's pack from the registry when
# an error is shown. (Both fail: the browser resolves no host names.)
OWN_REQUESTS = (
    "https://huggingface.co/Comfy-Org/z_image_turbo/",
    "https://api.comfy.org/comfy-nodes/",
    "https://api.comfy.org/nodes?",
)


@dataclass(frozen=True)
class FrontEnd:
    """Arguments of the server for a front end, and its settings.

    The settings are stored on the server, so each front end has its own server.
    """

    arguments: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)


_NEWEST = ("--front-end-root", str(front_end()))
FRONT_ENDS = {
    "pinned": FrontEnd(),  # the one that ComfyUI's requirements name
    "newest": FrontEnd(_NEWEST, {"Comfy.VueNodes.Enabled": False}),
    "nodes2": FrontEnd(_NEWEST, {"Comfy.VueNodes.Enabled": True}),
}


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def seed_settings(folder: Path, **more: object) -> None:
    """Before the server starts: no tutorial, no templates dialog."""
    user = folder / "user" / "default"
    user.mkdir(parents=True, exist_ok=True)
    (user / "comfy.settings.json").write_text(json.dumps({**SETTINGS, **more}), encoding="utf-8")


@contextmanager
def window(width: int = 1600, height: int = 1000) -> Iterator:
    """A Chromium for several pages, which knows no other machine than this one.

    Pages share its cache: the second of a server is quicker.
    """
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield browser.new_context(viewport={"width": width, "height": height})
        browser.close()


@contextmanager
def tab(window, server: Server) -> Iterator:
    """An open, ready page, as on a first visit.

    `errors` and `left` (requests to anywhere else) hold what is not the front end's own.
    """
    view = window.new_page()
    view.set_default_timeout(120_000)
    view.errors, view.left = [], []
    view.on("pageerror", lambda e: view.errors.append(str(e)) if not any(o in str(e) for o in OWN_ERRORS) else None)
    inside = (server.url, "data:", "blob:", *OWN_REQUESTS)
    view.on("request", lambda r: None if r.url.startswith(inside) else view.left.append(r.url))
    view.goto(f"{server.url}/system_stats")
    view.evaluate("() => { localStorage.clear(); sessionStorage.clear() }")  # workflows that another page left open
    view.goto(server.url)
    view.wait_for_function("window.app?.vueAppReady && window.app.extensionManager", timeout=300_000)
    view.wait_for_function("!!app.extensionManager.workflow.activeWorkflow", timeout=300_000)
    view.wait_for_timeout(500)
    yield view
    view.close()


@contextmanager
def page(server: Server, width: int = 1600, height: int = 1000) -> Iterator:
    """A page in a Chromium of its own."""
    with window(width, height) as alone, tab(alone, server) as view:
        yield view


def load(view, workflow: dict) -> None:
    view.evaluate("async (w) => { await app.loadGraphData(w, true, true, null) }", workflow)
    view.wait_for_timeout(800)


def open_template(view, name: str) -> None:
    """By Browse Templates, as a user does."""
    view.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = view.get_by_role("dialog").last
    dialog.get_by_text("dreambooth_dpo", exact=True).first.click()
    card = view.get_by_test_id(f"template-workflow-{name}")
    card.wait_for()
    picture = card.locator("img").first
    with Image.open(FOLDER / f"{name}.jpg") as thumbnail:
        size = thumbnail.size
    view.wait_for_function(
        "([i, w, h]) => i.complete && i.naturalWidth === w && i.naturalHeight === h",
        arg=[picture.element_handle(), *size],
    )
    card.click()
    card.wait_for(state="hidden")


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


def unlink(view, kind: str, name: str) -> None:
    """Take the link off an input."""
    view.evaluate(
        """([type, name]) => {
            const node = app.graph._nodes.find(n => n.type === type)
            node.disconnectInput(node.inputs.findIndex(i => i.name === name))
        }""",
        [kind, name],
    )


def press_run(view) -> tuple[int, dict]:
    """The real button; the server's answer."""
    with view.expect_response(lambda r: r.url.endswith("/prompt") and r.request.method == "POST") as found:
        view.get_by_role("button", name="Run", exact=True).first.click()  # the second one opens a list of ways to run
    return found.value.status, found.value.json()


def reads(view, text: str | re.Pattern[str]) -> None:
    """Wait until a user can read this text in a dialog or message over the canvas.

    In the newest front end it is behind "View details" and the info of an input.
    """
    details = view.get_by_test_id("error-overlay-see-errors")
    info = view.get_by_role("button", name=re.compile("^Info for")).first
    shown = view.get_by_text(text).filter(visible=True).first
    shown.or_(details).first.wait_for()
    if details.is_visible():
        details.click()
        shown.or_(info).first.wait_for()
        if not shown.is_visible():
            info.click()
    shown.wait_for()


def red(view) -> list[str]:
    """Nodes that the front end marks as wrong."""
    return view.evaluate(
        """app.graph._nodes.filter(n =>
            n.has_errors || app.lastNodeErrors?.[n.id] || app.lastExecutionError?.node_id == n.id).map(n => n.type)"""
    )


def run(view, server: Server, timeout: float = 600) -> dict:
    """Queue the graph on the canvas as the Run button does; returns its history entry."""
    with view.expect_response(lambda r: r.url.endswith("/prompt") and r.request.method == "POST") as found:
        view.evaluate("async () => { await app.queuePrompt(0, 1) }")
    answer = found.value.json()
    assert found.value.status == 200 and not answer["node_errors"], (
        answer
    )  # with errors of some outputs' nodes the others would run
    return finished(view, server, answer["prompt_id"], timeout)


def finished(view, server: Server, prompt_id: str, timeout: float = 600) -> dict:
    """Wait for the history entry of a prompt and return it.

    The page keeps working meanwhile, because this thread handles its requests.
    """
    until = time.monotonic() + timeout
    while not (found := server.get(f"/history/{prompt_id}")):
        assert time.monotonic() < until, f"prompt {prompt_id} did not end in {timeout:g} s: {server.said()[-2000:]}"
        view.wait_for_timeout(200)
    return found[prompt_id]


def fit(view) -> None:
    """Fit all nodes on the screen."""
    view.evaluate(
        """() => {
            const c = app.canvas, b = [1e9, 1e9, -1e9, -1e9]
            for (const n of app.graph._nodes) {
                b[0] = Math.min(b[0], n.pos[0]); b[1] = Math.min(b[1], n.pos[1] - 40)
                b[2] = Math.max(b[2], n.pos[0] + n.size[0]); b[3] = Math.max(b[3], n.pos[1] + n.size[1])
            }
            const top = 60, left = 70, w = c.canvas.clientWidth - left - 20, h = c.canvas.clientHeight - top - 20
            const s = Math.min(w / (b[2] - b[0]), h / (b[3] - b[1]))
            c.ds.scale = s
            c.ds.offset[0] = -b[0] + left / s
            c.ds.offset[1] = -b[1] + top / s
            c.setDirty(true, true)
        }"""
    )
    view.wait_for_timeout(700)


def look_at(view, kind: str, scale: float = 1) -> None:
    """Move the first node of a type to the top left of the canvas."""
    view.evaluate(
        """([kind, scale]) => {
            const node = app.graph._nodes.find(n => n.type === kind), ds = app.canvas.ds
            ds.scale = scale
            ds.offset[0] = 120 / scale - node.pos[0]
            ds.offset[1] = 120 / scale - node.pos[1]
            app.canvas.setDirty(true, true)
        }""",
        [kind, scale],
    )
    view.wait_for_timeout(700)


def overlaps(view) -> list[tuple[str, str]]:
    """Titles of nodes that overlap on the canvas, title bars included."""
    fit(view)
    boxes = view.evaluate(
        """() => app.graph._nodes.map(node => {
            const html = globalThis.LiteGraph?.vueNodesMode && document.querySelector(`[data-node-id="${node.id}"]`)
            if (html) {
                const box = html.getBoundingClientRect(), scale = app.canvas.ds.scale
                return [node.title, box.left / scale, box.top / scale, box.right / scale, box.bottom / scale]
            }
            const [[x, y], [width, height]] = [node.pos, node.size]
            return [node.title, x, y - LiteGraph.NODE_TITLE_HEIGHT, x + width, y + height]
        })"""
    )
    pairs = itertools.combinations(boxes, 2)
    return [
        (a[0], b[0])
        for a, b in pairs
        if min(a[3], b[3]) - max(a[1], b[1]) > 1 and min(a[4], b[4]) - max(a[2], b[2]) > 1
    ]


def heights(view) -> dict[str, float]:
    """Heights of nodes below their titles, by id: the current one, and the least that is needed."""
    return view.evaluate(
        """() => Object.fromEntries(app.graph._nodes.map(node => {
            const html = globalThis.LiteGraph?.vueNodesMode && document.querySelector(`[data-node-id="${node.id}"]`)
            const shown = html && html.getBoundingClientRect().height / app.canvas.ds.scale
            const height = html ? shown - LiteGraph.NODE_TITLE_HEIGHT
                : Math.max(node.size[1], node.computeSize()[1])
            return [node.id, height]
        }))"""
    )


def come_back(view, kind: str) -> None:
    """Reload the page and wait until the workflow with a node of this type is restored."""
    view.reload()
    view.wait_for_function(
        "kind => window.app?.vueAppReady && app.graph?._nodes?.some(n => n.type === kind)", arg=kind, timeout=300_000
    )
