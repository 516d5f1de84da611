"""What a beginner sees of a node: few widgets, those that the rule uses; the others when asked for, or when they say
something.
"""

from __future__ import annotations

import pytest
from browsing import load, look_at, unlink
from hosting import Server
from workflows import to_ui

pytestmark = pytest.mark.front_ends("pinned", "nodes2", why="one canvas, and HTML nodes, which hide by their own means")
BEGINNER = {
    "DBDPO_Rounds": [
        "rounds", "run_name", "candidates_per_prompt", "steps", "cfg", "width", "height", "train_steps", "rule",
        "fidelity_weight",
    ],
    "DBDPO_SampleCandidates": ["run_name", "candidates_per_prompt", "steps", "cfg", "width", "height"],
    "DBDPO_BuildPairs": ["rule", "fidelity_weight"],
    "DBDPO_TrainStep": ["train_steps"],
    "DBDPO_PromptSet": ["preset"],
    "DBDPO_LoadScorer": ["scorer"],
    "DBDPO_SaveLora": ["filename_prefix"],
}  # fmt: skip
# The widgets of the first node of a type that a user sees, in order. A linked one is seen by its socket.
SEEN = """kind => {
    const node = app.graph._nodes.find(n => n.type === kind)
    const html = globalThis.LiteGraph?.vueNodesMode
    const linked = w => node.inputs.some(input => input.widget?.name === w.name && input.link != null)
    const shown = w => html
        ? linked(w) || (!w.hidden && !(w.options?.advanced && !node.showAdvanced))
        : node.isWidgetVisible(w)
    return node.widgets.filter(w => w.serialize !== false && shown(w)).map(w => w.name)
}"""


def node(kind: str, left: int, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs, "pos": [left, 100]}


def rows(view, kind: str) -> str:
    """The texts on an HTML node; "" on the canvas."""
    return view.evaluate(
        """kind => {
            const node = app.graph._nodes.find(n => n.type === kind)
            return document.querySelector(`[data-node-id="${node.id}"]`)?.innerText ?? ""
        }""",
        kind,
    )


def choose(view, kind: str, name: str, value: object) -> None:
    """As a user does: the widget's value, and its callback."""
    view.evaluate(
        """([kind, name, value]) => {
            const node = app.graph._nodes.find(n => n.type === kind)
            const widget = node.widgets.find(w => w.name === name)
            widget.value = value
            widget.callback?.(value, app.canvas, node)
        }""",
        [kind, name, value],
    )
    view.wait_for_timeout(400)


def press_advanced(view, kind: str) -> None:
    html = view.evaluate("Boolean(globalThis.LiteGraph?.vueNodesMode)")
    if html:
        node = view.evaluate("kind => String(app.graph._nodes.find(n => n.type === kind).id)", kind)
        view.locator(f'[data-node-id="{node}"]').get_by_text("advanced").first.click()
    else:
        place = view.evaluate(
            """kind => {
                const node = app.graph._nodes.find(n => n.type === kind)
                const button = node.widgets.find(w => w.name === "dbdpo_advanced")
                const [x, y] = app.canvas.ds.convertOffsetToCanvas([
                    node.pos[0] + node.size[0] / 2, node.pos[1] + button.last_y + 10])
                const at = app.canvas.canvas.getBoundingClientRect()
                return [at.left + x, at.top + y]
            }""",
            kind,
        )
        view.mouse.click(*place)
    view.wait_for_timeout(400)


@pytest.fixture
def fresh(server: Server, view):
    """New nodes of the pack, as a user adds them."""
    load(view, to_ui({}, server.get("/object_info")))
    view.evaluate(
        """kinds => kinds.forEach((kind, i) => {
            const node = LiteGraph.createNode(kind)
            node.pos = [500 * i, 100]
            app.graph.add(node)
        })""",
        list(BEGINNER),
    )
    view.wait_for_timeout(500)
    return view


def test_a_beginner_sees_few_widgets_and_the_others_on_demand(fresh):
    assert {kind: fresh.evaluate(SEEN, kind) for kind in BEGINNER} == BEGINNER
    look_at(fresh, "DBDPO_BuildPairs")
    html = rows(fresh, "DBDPO_BuildPairs")
    assert not html or ("fidelity_weight" in html and "margin" not in html and "angle_low" not in html)
    low = fresh.evaluate("app.graph._nodes.find(n => n.type === 'DBDPO_BuildPairs').size[1]")
    press_advanced(fresh, "DBDPO_BuildPairs")
    more = ["margin", "max_pairs_per_prompt", "max_uses", "rule", "fidelity_weight", "combine", "diversity"]
    assert fresh.evaluate(SEEN, "DBDPO_BuildPairs") == more
    assert fresh.evaluate("app.graph._nodes.find(n => n.type === 'DBDPO_BuildPairs').size[1]") > low or html
    press_advanced(fresh, "DBDPO_BuildPairs")
    assert fresh.evaluate(SEEN, "DBDPO_BuildPairs") == BEGINNER["DBDPO_BuildPairs"]
    assert html or fresh.evaluate("app.graph._nodes.find(n => n.type === 'DBDPO_BuildPairs').size[1]") == low


def test_widgets_follow_the_rule_and_what_was_set_stays_in_sight(fresh):
    kind = "DBDPO_BuildPairs"
    look_at(fresh, kind)
    choose(fresh, kind, "rule", "angle_window")
    assert fresh.evaluate(SEEN, kind) == ["angle_low", "angle_high", "rule", "window"]
    html = rows(fresh, kind)
    assert not html or ("angle_low" in html and "fidelity_weight" not in html)
    choose(fresh, kind, "window", "auto")
    assert fresh.evaluate(SEEN, kind) == ["rule", "window", "steer"]
    choose(fresh, kind, "rule", "pareto")
    choose(fresh, kind, "margin", 1.5)
    assert fresh.evaluate(SEEN, kind) == ["margin", "rule"]
    html = rows(fresh, kind)
    assert not html or "margin" in html
    # Saved and loaded again: the order of values is as ever, and what was set is in sight.
    saved = fresh.evaluate("app.graph.serialize()")
    (node,) = [n for n in saved["nodes"] if n["type"] == kind]
    assert node["widgets_values"] == [20, 70, 1.5, 6, 3, "pareto", "auto", 0.5, 0.5, "worst", 0]
    load(fresh, saved)
    assert fresh.evaluate(SEEN, kind) == ["margin", "rule"]
    again = fresh.evaluate("app.graph.serialize()")["nodes"]
    assert next(n for n in again if n["type"] == kind)["size"] == node["size"]


def test_a_link_keeps_its_widget_in_sight(fresh):
    fresh.evaluate(
        """() => {
            const set = app.graph._nodes.find(n => n.type === "DBDPO_PromptSet")
            const toy = LiteGraph.createNode("DBDPO_LoadToybox")
            app.graph.add(toy)
            toy.connect(toy.outputs.findIndex(o => o.name === "prompts"), set,
                set.inputs.findIndex(i => i.name === "held_out_text"))
        }"""
    )
    fresh.wait_for_timeout(400)
    assert fresh.evaluate(SEEN, "DBDPO_PromptSet") == ["preset", "held_out_text"]
    look_at(fresh, "DBDPO_PromptSet")
    html = rows(fresh, "DBDPO_PromptSet")
    assert not html or "held_out_text" in html
    choose(fresh, "DBDPO_PromptSet", "preset", "own text")
    assert fresh.evaluate(SEEN, "DBDPO_PromptSet") == ["preset", "text", "held_out_text"]
    choose(fresh, "DBDPO_PromptSet", "preset", "objects")
    unlink(fresh, "DBDPO_PromptSet", "held_out_text")
    fresh.wait_for_timeout(400)
    assert fresh.evaluate(SEEN, "DBDPO_PromptSet") == ["preset"]


def test_an_older_graph_keeps_its_values_and_shows_them(server: Server, view):
    """A node as an older version saved it: a window of angles, and a negative prompt of two lines."""
    graph = {
        "sample": node("DBDPO_SampleCandidates", 0, negative="blurry\nugly", batch_size=4),
        "pairs": node("DBDPO_BuildPairs", 500, rule="angle_window", angle_low=10),
    }
    load(view, to_ui(graph, server.get("/object_info")))
    seen = view.evaluate(SEEN, "DBDPO_SampleCandidates")
    assert seen == ["run_name", "candidates_per_prompt", "steps", "cfg", "width", "height", "batch_size", "negative"]
    assert view.evaluate(SEEN, "DBDPO_BuildPairs") == ["angle_low", "angle_high", "rule", "window"]
    prompt = view.evaluate("async () => (await app.graphToPrompt()).output")
    inputs = {entry["class_type"]: entry["inputs"] for entry in prompt.values()}
    assert inputs["DBDPO_SampleCandidates"]["negative"] == "blurry\nugly"
    assert inputs["DBDPO_BuildPairs"]["margin"] == 0.5 and inputs["DBDPO_BuildPairs"]["angle_low"] == 10
