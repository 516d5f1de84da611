"""An open Inspect Pairs node in a browser: its graph, its panel, and its saved values."""

from __future__ import annotations

import json
import re

from browsing import fit, load, run
from hosting import Server
from toy_graphs import TOY_PROMPTS, toy_loop_graph
from workflows import to_ui

PANEL = ".dbdpo-inspect"
NODE = "app.graph._nodes.find(n => n.type === 'DBDPO_InspectPairs' && (!title || n.title === title))"


def workflow(server: Server, inspectors: int = 1, edits: str = "", **changes: dict) -> dict:
    """A toybox loop with several Inspect Pairs nodes, each followed by a node that shows its summary."""
    own = {"sample": {"run_name": "inspect"}, "pairs": {"max_uses": 10}, "prompts": TOY_PROMPTS}
    whole = toy_loop_graph(**{name: {**own.get(name, {}), **changes.get(name, {})} for name in {**own, **changes}})
    graph = {name: whole[name] for name in ("toy", "concept", "prompts", "sample", "scorer", "score", "pairs")}
    for i in range(inspectors):
        graph[f"inspect_{i}"] = {
            "class_type": "DBDPO_InspectPairs", "inputs": {"pairs": ["pairs", 0], "edits": edits},
            "size": [1240, 960], "title": f"inspector {i}",
        }  # fmt: skip
        graph[f"words_{i}"] = {
            "class_type": "PreviewAny",
            "inputs": {"source": [f"inspect_{i}", 1]},
            "title": f"words {i}",
        }
    for i, node in enumerate(graph.values()):
        node["pos"] = [-1700 + 400 * (i % 4), 500 * (i // 4)]
    for i in range(inspectors):
        graph[f"inspect_{i}"]["pos"] = [1300 * i, 0]
        graph[f"words_{i}"]["pos"] = [1300 * i, 1100]
    return to_ui(graph, server.get("/object_info"))


def ready(view, panels: int = 1) -> None:
    """Wait until this many panels show pairs with their pictures."""
    view.wait_for_function(
        f"""count => {{
            const shown = [...document.querySelectorAll('{PANEL} .dbdpo-body')].filter(b => !b.hidden && b.isConnected)
            const pictures = shown.flatMap(b => [...b.querySelectorAll('figure:not([hidden]) img, .dbdpo-photos img')])
            return shown.length === count && pictures.length > 2 * count
                && pictures.every(i => i.complete && i.naturalWidth > 0)
        }}""",
        arg=panels,
        timeout=180_000,
    )


def look_at(view, title: str = "", scale: float = 0.8) -> None:
    """Let the node fill the screen."""
    view.evaluate(
        f"""([title, scale]) => {{
            const node = {NODE}, ds = app.canvas.ds
            ds.scale = scale
            ds.offset[0] = 100 / scale - node.pos[0]
            ds.offset[1] = 120 / scale - node.pos[1]
            app.canvas.setDirty(true, true)
        }}""",
        [title, scale],
    )
    view.wait_for_timeout(800)


def opened(view, server: Server, **more) -> None:
    load(view, workflow(server, **more))
    assert run(view, server)["status"]["status_str"] == "success"
    count = more.get("inspectors", 1)
    fit(view)
    ready(view, count)
    if count == 1:
        look_at(view)


def edits(view, title: str = "") -> dict:
    text = view.evaluate(f"title => {NODE}.widgets.find(w => w.name === 'edits').value", title)
    return json.loads(text) if text else {}


def payload(view, title: str = "") -> dict:
    return view.evaluate(f"title => app.nodeOutputs[{NODE}.id].dbdpo_inspect[0]", title)


def summary(view, server: Server, title: str = "words 0") -> str:
    """The summary output of the inspector after a run."""
    assert run(view, server)["status"]["status_str"] == "success"
    view.wait_for_timeout(500)
    return view.evaluate("t => app.nodeOutputs[app.graph._nodes.find(n => n.title === t).id].text[0]", title)


def press(view, *keys: str) -> None:
    for key in keys:
        view.keyboard.press(key)
    view.wait_for_timeout(150)


def button(view, name: str):
    return view.locator(PANEL).get_by_role("button", name=name)


def says(view, text: str) -> None:
    view.locator(PANEL).get_by_text(text).first.wait_for()


def changed(view, count: int) -> None:
    """Wait until this many pairs are swapped or rejected."""
    ways = "|".join(f"{swapped} swapped; {count - swapped} rejected" for swapped in range(count + 1))
    view.locator(PANEL).get_by_text(re.compile(rf"^\d+ pairs? go to training: \d+ confirmed, ({ways})")).wait_for()


def point_of(view, position: int) -> list[float]:
    """A candidate's position on the screen, from the panel's scores and axes."""
    return view.evaluate(
        """position => {
            const svg = document.querySelector('.dbdpo-cloud svg'), payload = app.nodeOutputs[
                app.graph._nodes.find(n => n.type === 'DBDPO_InspectPairs').id].dbdpo_inspect[0]
            const line = (axis, values) => {
                const at = [...svg.querySelectorAll('.dbdpo-ticks text')]
                    .filter(t => (t.getAttribute('text-anchor') === 'middle') === (axis === 'x'))
                const to = t => Number(t.getAttribute(axis)) - (axis === 'y' ? 7 : 0)
                const [a, b] = [at[0], at.at(-1)]
                const share = (values[position] - Number(a.textContent))
                    / (Number(b.textContent) - Number(a.textContent))
                return to(a) + share * (to(b) - to(a))
            }
            const point = new DOMPoint(line('x', payload.x), line('y', payload.y)).matrixTransform(svg.getScreenCTM())
            return [point.x, point.y]
        }""",
        position,
    )


def drawn(view) -> set[str]:
    """What the scatter plot draws of the pair rule."""
    kinds = ("wedge", "way", "level")
    return {k for k in kinds if view.locator(f"{PANEL} .dbdpo-cloud .dbdpo-{k}").first.get_attribute("d")}
