"""A first run, in a real browser on a real ComfyUI: open the quickstart, press Run, look.

One run a front end; every test looks at it.
"""

from __future__ import annotations

import pytest
from browsing import come_back, finished, fit, look_at, open_template, overlaps, press_run, red, set_widgets, tab
from hosting import Server, executed
from PIL import Image

pytestmark = pytest.mark.front_ends(
    "pinned", "nodes2", why="one canvas and one page of HTML nodes; the newest canvas is opened by three other files"
)
STEPS = 12
# By the page, before Run is pressed: the same wiring in seconds.
SMALL = {
    "DBDPO_LoadToybox": {"steps": 10},
    "DBDPO_SampleCandidates": {"candidates_per_prompt": 3, "steps": 5},
    "DBDPO_BuildPairs": {"max_uses": 10},
    "DBDPO_TrainStep": {"train_steps": STEPS, "pairs_per_step": 4},
    "DBDPO_Evaluate": {"seeds_per_prompt": 2},
}
PICTURES = (
    "PreviewImage",
    "DBDPO_SampleCandidates",
    "DBDPO_Score",
    "DBDPO_BuildPairs",
    "DBDPO_PreviewPairs",
)
# Pictures of a node that the user sees: the canvas's own, or where nodes are HTML those of the node's preview.
SEEN = """const seen = node => globalThis.LiteGraph?.vueNodesMode
    ? [...document.querySelectorAll(`[data-node-id="${node.id}"] img`)].filter(i => !i.closest(".dbdpo-compare"))
    : node.imgs ?? []"""
# Notes how many points the curve has, whenever that changes.
WATCH = """() => {
    window.grown = []
    setInterval(() => {
        const points = Number(document.querySelector(".dbdpo-curve")?.dataset.points ?? 0)
        if (points && points !== window.grown.at(-1)) window.grown.push(points)
    }, 50)
}"""


@pytest.fixture(scope="module")
def ran(server: Server, browser):
    """The page after its run, and the run's history."""
    with tab(browser, server) as view:
        open_template(view, "toybox_quickstart")
        view.wait_for_function("app.graph._nodes.some(n => n.type === 'DBDPO_Evaluate')")
        view.wait_for_timeout(500)
        set_widgets(view, SMALL)
        look_at(view, "DBDPO_TrainStep")  # a view is in the page while its node is on the screen
        view.evaluate(WATCH)
        status, answer = press_run(view)
        assert status == 200, answer
        history = finished(view, server, answer["prompt_id"], 300)
        assert history["status"]["status_str"] == "success", history["status"]
        yield view, history
        assert not view.errors
        assert not view.left


def run_again(view, server: Server) -> dict:
    status, answer = press_run(view)
    assert status == 200, answer
    return finished(view, server, answer["prompt_id"], 120)


def curve_points(view) -> None:
    """The whole curve is on the node."""
    look_at(view, "DBDPO_TrainStep")
    view.wait_for_function(f"document.querySelector('.dbdpo-curve')?.dataset.points === '{STEPS}'")
    assert view.locator(".dbdpo-curve polyline").count() == 6


def test_the_curve_grows_while_it_trains(ran):
    view, _ = ran
    grown = view.evaluate("window.grown")
    assert len(grown) >= 3 and grown == sorted(grown), grown
    curve_points(view)
    assert f"step {STEPS} of {STEPS}" in view.locator(".dbdpo-curve").inner_text()
    names = view.locator(".dbdpo-curve-name").all_text_contents()
    assert names == ["loss", "margin", "winner error"]
    assert view.locator(".dbdpo-curve-warning").count() == 1


def test_every_picture_is_seen_and_the_lora_is_saved(server: Server, ran):
    view, _ = ran
    fit(view)  # a node's pictures are fetched when it is drawn
    view.wait_for_function(
        f"""kinds => {{
            {SEEN}
            return app.graph._nodes.filter(n => kinds.includes(n.type)).every(n => app.nodeOutputs[n.id]?.images?.length
                && seen(n).length && seen(n).every(i => i.complete && i.naturalWidth > 60))
        }}""",
        arg=PICTURES,
    )
    texts = view.evaluate(
        "Object.fromEntries(app.graph._nodes.map(n => [n.title, (app.nodeOutputs[n.id]?.text ?? []).join()]))"
    )
    assert texts["Save DPO LoRA"].startswith("saved as dreambooth_dpo/toybox_0")
    name, lists, file, checked = texts["Save DPO LoRA"].removeprefix("saved as ").split("\n")
    assert "Load LoRA lists it under this name" in lists and file.endswith(name)
    assert checked.startswith("Read back by ComfyUI's loader: equal to the adapter")
    assert (server.folder / "models" / "loras" / name).is_file()
    # A Load LoRA that is added now offers it, without key R.
    view.wait_for_function(
        """name => {
            const node = LiteGraph.createNode("LoraLoader")
            const { values } = node.widgets.find(w => w.name === "lora_name").options
            return (typeof values === "function" ? values() : values).includes(name)
        }""",
        arg=name,
    )
    assert "40 held-out pictures of 20 prompts" in texts["Evaluate Before/After"]
    # The report can be read on the canvas, too.
    shown = view.evaluate(
        "app.graph._nodes.find(n => n.title === 'Did it get better?').widgets.map(w => String(w.value)).join()"
    )
    assert "40 held-out pictures of 20 prompts" in shown
    assert overlaps(view) == []
    assert red(view) == []


def test_before_and_after_is_the_one_picture_of_its_node(server: Server, ran):
    """The grid is in the history, for whoever lists runs, but not on the node: neither as its picture nor as a preview
    that stayed.
    """
    view, history = ran
    look_at(view, "DBDPO_Evaluate")
    stage = view.locator(".dbdpo-compare-stage")
    stage.wait_for()
    view.wait_for_timeout(1500)  # a picture of its own would be fetched now
    node = "app.graph._nodes.find(n => n.type === 'DBDPO_Evaluate')"
    assert view.evaluate(f"() => {{ {SEEN}; return seen({node}).map(i => i.src) }}") == []
    assert view.evaluate(f"{node}.widgets.map(w => w.name).filter(name => name.startsWith('$$'))") == []
    grid = history["outputs"][str(view.evaluate(f"{node}.id"))]["images"][0]
    with Image.open(server.folder / "temp" / grid["subfolder"] / grid["filename"]) as kept:
        assert min(kept.size) > 100
    # The room is the slider's and the report's: they reach down to the node's lower edge.
    bottom, edge = view.evaluate(
        f"""() => {{
            const node = {node}, at = app.canvas.canvas.getBoundingClientRect()
            const html = globalThis.LiteGraph?.vueNodesMode && document.querySelector(`[data-node-id="${{node.id}}"]`)
            const edge = html ? html.getBoundingClientRect().bottom
                : at.top + app.canvas.ds.convertOffsetToCanvas([node.pos[0], node.pos[1] + node.size[1]])[1]
            const views = node.widgets.filter(w => w.element?.isConnected).map(w => w.element.getBoundingClientRect())
            return [Math.max(...views.map(box => box.bottom)), edge]
        }}"""
    )
    assert 0 <= edge - bottom < 80, (edge, bottom)  # Nodes 2.0 has its button for advanced inputs below


def test_the_verdict_and_what_to_do_stand_above_the_slider(ran):
    view, _ = ran
    look_at(view, "DBDPO_Evaluate")
    view.locator(".dbdpo-compare-stage").wait_for()
    words = view.locator(".dbdpo-said-verdict")
    verdict, advice = words.inner_text().splitlines()[:2]
    assert verdict.startswith(("It got", "No gain", "A trade", "Better in", "The reward rose"))
    assert advice.startswith(("Use ", "Lower ", "Raise ", "Look at "))
    top, slider = words.bounding_box(), view.locator(".dbdpo-compare").bounding_box()
    assert top["y"] + top["height"] <= slider["y"] + 1


def test_the_train_step_shows_one_curve(ran):
    view, history = ran
    look_at(view, "DBDPO_TrainStep")
    node = "app.graph._nodes.find(n => n.type === 'DBDPO_TrainStep')"
    assert view.evaluate(f"() => {{ {SEEN}; return seen({node}).length }}") == 0
    assert "images" not in history["outputs"][str(view.evaluate(f"{node}.id"))]


def test_before_and_after_by_mouse_and_keys(ran):
    view, _ = ran
    look_at(view, "DBDPO_Evaluate")
    stage = view.locator(".dbdpo-compare-stage")
    view.wait_for_function(
        "[...document.querySelectorAll('.dbdpo-compare-stage img')].every(i => i.complete && i.naturalWidth === 64)"
    )
    place = view.evaluate("[...app.graph._nodes.find(n => n.type === 'DBDPO_Evaluate').pos, ...app.canvas.ds.offset]")
    box = stage.bounding_box()
    assert box["width"] > 150 and box["height"] > 150
    middle = box["y"] + box["height"] / 2
    view.mouse.move(box["x"] + box["width"] / 2, middle)
    view.mouse.down()
    view.mouse.move(box["x"] + box["width"] * 0.2, middle, steps=4)
    view.mouse.up()
    assert float(stage.get_attribute("aria-valuenow")) == pytest.approx(20, abs=2)
    assert view.evaluate("getComputedStyle(document.querySelector('.dbdpo-compare-after')).clipPath").startswith(
        "inset(0px 0px 0px "
    )
    view.keyboard.press("ArrowRight")
    assert float(stage.get_attribute("aria-valuenow")) == pytest.approx(22, abs=2)
    view.keyboard.press("End")
    assert stage.get_attribute("aria-valuenow") == "100"
    # Neither the node nor the view has moved with it.
    assert (
        view.evaluate("[...app.graph._nodes.find(n => n.type === 'DBDPO_Evaluate').pos, ...app.canvas.ds.offset]")
        == place
    )
    before = stage.locator("img").first.get_attribute("src")
    view.locator(".dbdpo-compare select").first.select_option(index=3)
    view.get_by_role("button", name="next image").click()
    assert stage.locator("img").first.get_attribute("src") != before
    assert view.locator(".dbdpo-compare select").last.input_value() == "2"
    assert "→" in view.locator(".dbdpo-compare-words").inner_text()


def test_the_views_come_back_after_another_tab_a_reload_and_a_cached_run(server: Server, ran):
    view, _ = ran
    view.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    view.wait_for_function("app.graph._nodes.length === 0")
    view.get_by_text("toybox_quickstart", exact=False).first.click()
    view.wait_for_function("app.graph._nodes.some(n => n.type === 'DBDPO_TrainStep')")
    curve_points(view)
    come_back(view, "DBDPO_TrainStep")
    curve_points(view)
    history = run_again(view, server)
    trained = str(view.evaluate("app.graph._nodes.find(n => n.type === 'DBDPO_TrainStep').id"))
    assert trained not in executed(history)
    curve_points(view)
    look_at(view, "DBDPO_Evaluate")
    view.wait_for_function(
        "[...document.querySelectorAll('.dbdpo-compare-stage img')].every(i => i.complete && i.naturalWidth === 64)"
    )
