"""The panel of DPO Rounds in a real browser: it moves, its button ends the loop with a saved LoRA, the report opens."""

from __future__ import annotations

import pytest
from browsing import come_back, finished, open_template, press_run, set_widgets, tab, unlink
from hosting import Server
from toy_graphs import FEW_PROMPTS

pytestmark = pytest.mark.front_ends("pinned", "nodes2", why="one canvas and one page of HTML nodes")
SMALL = {
    "DBDPO_LoadToybox": {"steps": 5},
    "DBDPO_PromptSet": FEW_PROMPTS,
    "DBDPO_Rounds": {
        "rounds": 4, "candidates_per_prompt": 4, "steps": 5, "max_uses": 10, "train_steps": 6, "pairs_per_step": 4,
        "learning_rate": 1e-5, "seeds_per_prompt": 2,
    },
    "DBDPO_Evaluate": {"seeds_per_prompt": 2},
}  # fmt: skip
# Notes the bar's value, whenever it changes.
WATCH = """() => {
    window.moved = []
    setInterval(() => {
        const value = Number(document.querySelector(".dbdpo-rounds-bar")?.getAttribute("aria-valuenow") ?? 0)
        if (value !== window.moved.at(-1)) window.moved.push(value)
    }, 50)
}"""
LOADED = """() => {
    const images = [...document.querySelectorAll(".dbdpo-rounds-row img")]
    return images.length === 8 && images.every(i => i.complete && i.naturalWidth === 64)
}"""


def look_at_panel(view) -> None:
    """Move the lower end of the node, with its views, into the window: on a canvas, what is outside has no size."""
    view.evaluate(
        """() => {
            const node = app.graph._nodes.find(n => n.type === 'DBDPO_Rounds'), ds = app.canvas.ds
            const box = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
            const height = globalThis.LiteGraph?.vueNodesMode && box ? box.height / ds.scale : node.size[1]
            ds.scale = 0.7
            ds.offset[0] = 420 / ds.scale - node.pos[0]
            ds.offset[1] = (app.canvas.canvas.clientHeight - 40) / ds.scale - node.pos[1] - height
            app.canvas.setDirty(true, true)
        }"""
    )
    view.wait_for_timeout(700)


@pytest.fixture(scope="module")
def stopped(server: Server, browser):
    """The page after a run whose Stop was pressed once a round was measured, and what the panel said before."""
    with tab(browser, server) as view:
        open_template(view, "toybox_three_rounds")
        view.wait_for_function("app.graph._nodes.some(n => n.type === 'DBDPO_Rounds')")
        view.wait_for_timeout(500)
        for name in FEW_PROMPTS:
            unlink(view, "DBDPO_PromptSet", name)
        set_widgets(view, SMALL)
        look_at_panel(view)
        panel = view.locator(".dbdpo-rounds")
        idle = panel.inner_text()
        view.evaluate(WATCH)
        status, answer = press_run(view)
        assert status == 200, answer
        view.wait_for_function("document.querySelector('.dbdpo-rounds-estimate')?.textContent.includes('Disk')")
        early = panel.inner_text()
        view.wait_for_function("document.querySelectorAll('.dbdpo-rounds-dot').length >= 2", timeout=400_000)
        middle = panel.inner_text()
        # At once, by the mouse: a click of Playwright waits until the page is at rest, and the run goes on meanwhile.
        box = panel.get_by_role("button", name="Stop, keep the best").bounding_box()
        view.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        history = finished(view, server, answer["prompt_id"], 400)
        yield view, history, (idle, early, middle)
        assert not view.errors
        assert not view.left


def test_the_panel_moves_and_says_where_the_run_is(stopped):
    view, _, (idle, early, middle) = stopped
    assert "Press Run" in idle
    assert "Round 1 of 4" in early and "elapsed" in early and "Pictures to draw: 96 candidates" in early
    assert "of 4" in middle and "left" in middle
    view.wait_for_function("window.moved.at(-1) === 100")  # the watch looks every 50 ms
    moved = view.evaluate("window.moved")
    assert len(moved) > 4 and moved == sorted(moved), moved


def test_stop_ends_the_loop_and_the_lora_is_saved(server: Server, stopped):
    view, history, _ = stopped
    assert history["status"]["status_str"] == "success", history["status"]
    saved = view.evaluate("app.nodeOutputs[app.graph._nodes.find(n => n.type === 'DBDPO_SaveLora').id].text.join()")
    name = saved.removeprefix("saved as ").split(".safetensors")[0]
    assert (server.folder / "models" / "loras" / f"{name}.safetensors").is_file()
    panel = view.locator(".dbdpo-rounds")
    view.wait_for_function("document.querySelector('.dbdpo-rounds')?.dataset.state === 'done'")
    assert "Finished" in panel.inner_text() and "Stopped: by you, after round" in panel.inner_text()
    assert panel.get_by_role("button", name="Stop").count() == 0


def test_pictures_and_points_are_there_and_come_back_after_a_reload(stopped):
    view, _, _ = stopped
    view.wait_for_function(LOADED)
    points = view.locator(".dbdpo-rounds-dot").count()
    assert points >= 2
    come_back(view, "DBDPO_Rounds")
    look_at_panel(view)
    view.wait_for_function(LOADED)
    assert view.locator(".dbdpo-rounds-dot").count() == points
    assert "Stopped: by you" in view.locator(".dbdpo-rounds").inner_text()


def test_the_report_opens_in_the_browser(stopped):
    view, _, _ = stopped
    with view.context.expect_page(timeout=120_000) as opened:
        view.locator(".dbdpo-rounds").get_by_role("button", name="Open the report").click()
    page = opened.value
    page.wait_for_load_state(timeout=120_000)
    assert page.locator("h1").inner_text() and page.locator("img").count() > 4
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 50)")
    page.close()
