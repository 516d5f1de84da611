"""Another language than English, in a real browser: where ComfyUI is set to it, a node's title, its widgets and what
they say are in it.
"""

from __future__ import annotations

import json

import pytest
from browsing import look_at, tab
from hosting import ROOT, Server

pytestmark = pytest.mark.front_ends("nodes2", why="titles and tooltips: the same code shows them on both canvases")
KIND, WIDGET = "DBDPO_LoadToybox", "steps"
LANGUAGES = sorted(folder.name for folder in (ROOT / "locales").iterdir())
OFFERED = {"en", "ja", "zh"}  # Those of ours that every front end has itself.
PLACE = """([kind, name]) => {
    const node = app.graph._nodes.find(n => n.type === kind), widget = node.widgets.find(w => w.name === name)
    const html = document.querySelector(`[data-node-id="${node.id}"]`)
    if (globalThis.LiteGraph?.vueNodesMode && html) {
        const seen = [...html.querySelectorAll("*")]
            .find(e => e.children.length === 0 && e.textContent.trim() === widget.label)
        const box = seen.getBoundingClientRect()
        return [box.left + box.width / 2, box.top + box.height / 2]
    }
    const middle = [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10]
    const [x, y] = app.canvas.ds.convertOffsetToCanvas(middle)
    const at = app.canvas.canvas.getBoundingClientRect()
    return [x + at.left, y + at.top]
}"""


@pytest.fixture(params=LANGUAGES)
def speaking(request: pytest.FixtureRequest, server: Server, browser):
    """A page of a ComfyUI that is set to the language, with one node on it, and what the pack says in the language that
    is then shown.

    Front end 1.27 shows any language; 1.49 and later the languages that they have themselves, and English in place of
    any other.
    """
    assert server.post("/api/settings/Comfy.Locale", request.param)[0] == 200
    try:
        with tab(browser, server) as view:
            view.evaluate("kind => { app.graph.clear(); app.graph.add(LiteGraph.createNode(kind)) }", KIND)
            look_at(view, KIND)
            version = view.evaluate("window.__COMFYUI_FRONTEND_VERSION__").split(".")
            any_language = [int(number) for number in version[:2]] <= [1, 27]
            shown = request.param if any_language or request.param in OFFERED else "en"
            yield view, json.loads((ROOT / "locales" / shown / "nodeDefs.json").read_text(encoding="utf-8"))[KIND]
            assert not view.errors
    finally:
        server.post("/api/settings/Comfy.Locale", "en")


def test_a_node_speaks_the_language(speaking):
    view, words = speaking
    said = words["inputs"][WIDGET]
    title, label = view.evaluate(
        "([kind, name]) => { const n = app.graph._nodes.find(n => n.type === kind); return [n.title, n.widgets.find(w "
        "=> w.name === name).label] }",
        [KIND, WIDGET],
    )
    assert (title, label) == (words["display_name"], said["name"])
    x, y = view.evaluate(PLACE, [KIND, WIDGET])
    view.mouse.move(x - 30, y)
    view.mouse.move(x, y, steps=3)
    view.get_by_text(said["tooltip"]).filter(visible=True).first.wait_for()
