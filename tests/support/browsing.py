"""ComfyUI's page as a user of it: templates, buttons, messages, and the canvas. Opened by comfyui_page.py."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from hosts import front_end
from PIL import Image
from workflows import FOLDER

from dreambooth_dpo.benchmarks.common.comfyui_page import (
    chromium,
    finished,
    listen,
    load,
    page,
    run,
    seed_settings,
    set_widgets,
    tab,
    window,
)

__all__ = [
    "FRONT_ENDS",
    "chromium",
    "come_back",
    "finished",
    "fit",
    "heights",
    "load",
    "look_at",
    "open_template",
    "overlaps",
    "page",
    "press_run",
    "reads",
    "red",
    "run",
    "seed_settings",
    "set_widgets",
    "tab",
    "unlink",
    "window",
]


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


def open_template(view, name: str) -> None:
    """By Browse Templates, as a user does."""
    view.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = view.get_by_role("dialog").last
    dialog.get_by_text("dreambooth_dpo", exact=True).first.click()
    card = view.get_by_test_id(f"template-workflow-{name}")
    card.wait_for()
    card.scroll_into_view_if_needed()  # a front end loads a thumbnail when it comes into view
    picture = card.locator("img").first
    with Image.open(FOLDER / f"{name}.jpg") as thumbnail:
        size = thumbnail.size
    view.wait_for_function(
        "([i, w, h]) => i.complete && i.naturalWidth === w && i.naturalHeight === h",
        arg=[picture.element_handle(), *size],
    )
    card.click()
    card.wait_for(state="hidden")


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
    listen(view)
