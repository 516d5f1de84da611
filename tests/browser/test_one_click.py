"""One click, in a real browser: a blueprint from the search to a saved LoRA, and an example as an app."""

from __future__ import annotations

import pytest
from browsing import finished, open_template, press_run, tab
from hosting import Server
from one_click_page import SMALL, insert, link_toybox, listed, named, prepare, saved_loras, set_part
from workflows import VIEW_SCALE

pytestmark = pytest.mark.front_ends(
    "newest", "nodes2", why="the front end that the pinned host brings lists no packs' blueprints"
)
TOY_VALUES = {"scorer": "toybox reward", "judge": "toybox judge", "rounds": 1, "preset": "objects"}


@pytest.fixture(scope="module")
def lora(server: Server) -> str:
    return prepare(server)[-1]


@pytest.fixture
def page(server: Server, browser, lora: str):
    """A page opened after the LoRA and the photos were written, so that their lists have them."""
    with tab(browser, server) as view:
        view.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
        view.wait_for_function("app.graph._nodes.length === 0")
        yield view
        assert not view.errors and not view.left


def test_a_blueprint_is_found_set_and_run_and_saves_a_lora(page, server: Server, lora: str):
    assert listed(server) == {"Improve my LoRA", "Is my LoRA any good"}
    insert(page, "Improve my LoRA")
    link_toybox(page)
    shown = set_part(page, {**TOY_VALUES, **named(), "lora_name": lora, "fidelity_weight": 0.7})
    assert list(shown) == [
        "lora_name", "folder", "identifier", "class_noun", "preset", "fidelity_weight", "rounds", "scorer",
        "judge",
    ]  # fmt: skip
    status, answer = press_run(page)
    assert status == 200 and not answer["node_errors"], answer
    history = finished(page, server, answer["prompt_id"], 600)
    assert history["status"]["status_str"] == "success", history["status"]
    [name] = saved_loras(history)
    assert name.startswith("dreambooth_dpo/improved_") and (server.folder / "models" / "loras" / name).is_file()
    sent = next(n for n in history["prompt"][2].values() if n["class_type"] == "DBDPO_Rounds")
    assert sent["inputs"]["fidelity_weight"] == 0.7 and sent["inputs"]["rounds"] == 1


def test_a_blueprint_unpacks_to_its_nodes(page):
    insert(page, "Is my LoRA any good")
    inner = page.evaluate(
        """() => {
            const part = app.graph._nodes.find(n => n.isSubgraphNode?.())
            const kinds = part.subgraph.nodes.map(n => n.type).sort()
            app.graph.unpackSubgraph(part)
            return kinds
        }"""
    )
    assert "DBDPO_CompareLoras" in inner
    assert page.evaluate("app.graph._nodes.map(n => n.type).sort()") == inner
    assert page.evaluate("app.graph._nodes.find(n => n.type === 'DBDPO_CompareLoras').inputs.some(i => i.link)")


def test_an_example_opens_where_it_starts_and_can_be_read(view):
    open_template(view, "toybox_quickstart")
    view.wait_for_function(f"Math.abs(app.canvas.ds.scale - {VIEW_SCALE}) < 0.01")
    note = view.evaluate(
        """() => {
            const node = app.graph._nodes.find(n => n.type === "MarkdownNote")
            const [x, y] = app.canvas.ds.convertOffsetToCanvas(node.pos)
            return [x, y, node.widgets[0].value]
        }"""
    )
    assert 60 < note[0] < 200 and 60 < note[1] < 260 and note[2].startswith("# Start here: press Run")
    assert view.evaluate("app.graph.extra.dbdpo_start") is None, "a saved copy opens as its user left it"


def test_the_first_run_opens_as_an_app_and_shows_its_results(view, server: Server):
    name = "a_first_run_as_an_app"
    open_template(view, name)
    if (skip := view.get_by_role("button", name="Skip")).count():  # the front end's own tour, once
        skip.click()
    for label in ("share of fidelity", "rounds", "subject"):
        view.get_by_text(label, exact=True).filter(visible=True).first.wait_for()
    set_part(view, {"fidelity_weight": 0.4}, {**SMALL, "DBDPO_LoadToybox": {"steps": 10}})
    with view.expect_response(lambda r: r.url.endswith("/prompt") and r.request.method == "POST") as found:
        view.get_by_role("button", name="Run", exact=True).last.click()
    history = finished(view, server, found.value.json()["prompt_id"], 600)
    assert history["status"]["status_str"] == "success", history["status"]
    assert saved_loras(history)[0].startswith("dreambooth_dpo/toybox_one_click_")
    pictures = [image["filename"] for node in ("3", "5") for image in history["outputs"][node]["images"]]
    view.wait_for_function(
        "names => [...document.images].some(i => names.some(n => i.src.includes(n)) && i.naturalWidth > 100)",
        arg=pictures,
    )
