"""The inspector in a real browser: what it shows, what mouse and keys do, what the graph keeps of it, and what it must
never run.
"""

from __future__ import annotations

import json

import pytest
from browsing import load, run, tab
from hosting import Server
from inspector_page import (
    NODE,
    PANEL,
    button,
    changed,
    drawn,
    edits,
    look_at,
    opened,
    payload,
    point_of,
    press,
    ready,
    says,
    summary,
    workflow,
)

from dreambooth_dpo.dpo_core.run.folder import RunFolder

PANEL_ALONE = pytest.mark.front_ends("pinned", why="what the panel says and makes of its data: the same in any page")
SWAPPED, UNTOUCHED = "0 confirmed, 1 swapped; 0 rejected", "0 confirmed, 0 swapped; 0 rejected"


@pytest.fixture(scope="module")
def page(server: Server, browser):
    with tab(browser, server) as shared:
        yield shared


@pytest.fixture
def view(page):
    """One page for all, in which each test opens a graph of its own: the page takes longer to load than most tests."""
    yield page
    assert not page.errors
    assert not page.left


def test_a_flip_goes_on_and_comes_back(server: Server, view):
    """By the mouse: hover, select, swap, run, take back; and by ComfyUI's own undo."""
    load(view, workflow(server))
    look_at(view)
    says(view, "Press Run: the pairs will be shown here")
    opened(view, server)
    shown = payload(view)
    assert shown["window"] is None and drawn(view) == {"way", "level"}
    says(view, f"reward rises ({int(shown['way'] + 0.5)}°)")
    lonely = next(
        p for p in shown["pairs"][5:] if sum(p["winner"] in (o["winner"], o["loser"]) for o in shown["pairs"]) == 1
    )
    view.mouse.move(*point_of(view, lonely["winner"]), steps=3)
    tip = view.locator(".dbdpo-tip")
    tip.wait_for()
    # Others may lie on the same spot: what is told belongs to the candidate that is named.
    told = tip.inner_text()
    position = int(told.split("candidate ")[1].split(",")[0])
    assert shown["prompts"][shown["prompt"][position]] in told and f"seed {shown['seed'][position]}" in told
    assert f"fidelity {shown['fidelity'][position]:.3f}" in told
    assert shown["files"][position] in tip.locator("img").get_attribute("src")
    view.mouse.click(*point_of(view, lonely["winner"]))
    view.wait_for_timeout(300)
    chosen = view.evaluate("[...document.querySelectorAll('.dbdpo-figures figure:not([hidden]) img')].map(i => i.src)")
    pair = next(
        p
        for p in shown["pairs"]
        if shown["files"][p["winner"]] in chosen[0] and shown["files"][p["loser"]] in chosen[1]
    )
    button(view, "Swap (S)").click()
    changed(view, 1)
    says(view, "Press Run to apply your decisions.")
    assert edits(view)["pairs"] == {pair["id"]: "swap"}
    assert SWAPPED in summary(view, server)
    view.wait_for_function(f"!document.querySelector('{PANEL}').innerText.includes('Press Run')")
    button(view, "Undo (U)").click()
    assert edits(view) == {} and UNTOUCHED in summary(view, server)
    button(view, "Reject (R)").click()
    assert edits(view)["pairs"] == {pair["id"]: "reject"}
    view.locator(PANEL).focus()
    press(view, "Control+z")
    view.wait_for_timeout(1500)
    ready(view)
    assert edits(view) == {}
    changed(view, 0)
    assert view.evaluate(f"document.querySelector('{PANEL}').contains(document.activeElement)"), (
        "keys go on working after an undo"
    )


def test_the_keyboard_alone(server: Server, view):
    opened(view, server)
    shown = payload(view)
    ids = [p["id"] for p in shown["pairs"]]
    for _ in range(120):
        view.keyboard.press("Tab")
        if view.evaluate(f"document.activeElement.matches('{PANEL}')"):
            break
    else:
        pytest.fail("Tab does not come to the panel")
    nodes = view.evaluate("app.graph._nodes.length")
    press(view, "r", "ArrowRight", "s", "ArrowRight", "ArrowLeft", "ArrowRight", "k", "End", "r", "Delete", "Home")
    assert edits(view)["pairs"] == {ids[0]: "reject", ids[1]: "swap", ids[2]: "keep", ids[-1]: "reject"}
    assert view.evaluate("app.graph._nodes.length") == nodes, (
        "Delete is not for the canvas while the panel has the keys"
    )
    changed(view, 3)
    press(view, "u", "Home", "r")
    assert edits(view)["pairs"] == {ids[1]: "swap", ids[2]: "keep"}
    press(view, "1", "4")
    first = shown["pairs"][0]
    assert edits(view)["candidates"] == {str(first["winner"]): "up", str(first["loser"]): "down"}
    press(view, "m")
    says(view, f"Candidate {first['winner'] + 1} of {len(shown['prompt'])}")
    press(view, "1", "Home", "2")
    assert edits(view)["candidates"] == {str(first["loser"]): "down", "0": "down"}
    press(view, "m", "f")
    press(view, *["ArrowDown"] * (1 + shown["prompt"][shown["pairs"][-1]["winner"]]), "Escape", "End", "k")
    mine = [
        p["id"] for p in shown["pairs"] if shown["prompt"][p["winner"]] == shown["prompt"][shown["pairs"][-1]["winner"]]
    ]
    says(view, f"Pair {len(mine)} of {len(mine)}")
    assert edits(view)["pairs"][mine[-1]] == "keep"


@PANEL_ALONE
def test_stale_decisions_are_told_and_kept_ones_offered(server: Server, view):
    opened(view, server)
    view.locator(PANEL).focus()
    press(view, "r")
    mine = edits(view)
    run(view, server)
    other = json.dumps({**mine, "fingerprint": "f" * 16})
    opened(view, server, edits=other)
    says(view, "1 decision ignored")
    changed(view, 0)
    assert "1 decision dropped: made on other candidates." in summary(view, server)
    opened(view, server)
    button(view, "Restore 1 saved decision").click()
    assert edits(view) == mine
    changed(view, 1)


@PANEL_ALONE
def test_two_inspectors_do_not_meddle(server: Server, view):
    opened(view, server, inspectors=2)
    for title, name in (("inspector 0", "Swap (S)"), ("inspector 1", "Reject (R)")):
        look_at(view, title)
        spot = view.evaluate(
            f"title => {{ const n = {NODE}; return app.canvas.ds.convertOffsetToCanvas([n.pos[0] + 600, n.pos[1]]) }}",
            title,
        )
        panels = [view.locator(PANEL).nth(i) for i in range(2)]
        here = min(panels, key=lambda p: abs(p.bounding_box()["x"] + p.bounding_box()["width"] / 2 - spot[0]))
        here.get_by_role("button", name=name).click()
    assert list(edits(view, "inspector 0")["pairs"].values()) == ["swap"]
    assert list(edits(view, "inspector 1")["pairs"].values()) == ["reject"]
    assert SWAPPED in summary(view, server, "words 0")
    said = view.evaluate("app.nodeOutputs[app.graph._nodes.find(n => n.title === 'words 1').id].text[0]")
    assert "0 swapped; 1 rejected" in said


@PANEL_ALONE
def test_what_looks_like_a_script_is_text(server: Server, view):
    evil = ["a sks robot <img src=x onerror='window.hacked=1'>", "a sks robot <script>window.hacked=1</script> on sand"]
    text = {"text": "\n".join(evil), "held_out_text": "a sks robot <b>bold</b>", "preset": "own text"}
    sample, pairs = (
        {"run_name": "script", "candidates_per_prompt": 6},
        {"rule": "angle_window", "angle_low": -90, "angle_high": 180, "margin": 0},
    )
    opened(view, server, prompts=text, sample=sample, pairs=pairs)
    assert payload(view)["prompts"] == evil
    assert drawn(view) == {"wedge"} and not view.get_by_text("reward rises").is_visible()
    view.locator(PANEL).focus()
    press(view, "End", "Home")
    view.mouse.move(*point_of(view, payload(view)["pairs"][0]["winner"]), steps=3)
    view.locator(".dbdpo-tip").wait_for()
    shown = view.evaluate(f"document.querySelector('{PANEL}').innerText")
    assert "<img src=x onerror='window.hacked=1'>" in shown or "<script>" in shown
    assert set(evil) < set(view.evaluate(f"[...document.querySelectorAll('{PANEL} option')].map(o => o.textContent)"))
    # A run from elsewhere may hold file names of any kind.
    view.evaluate(
        """() => {
            const node = app.graph._nodes.find(n => n.type === 'DBDPO_InspectPairs')
            // The newest front end gives a proxy.
            const shown = JSON.parse(JSON.stringify(app.nodeOutputs[node.id].dbdpo_inspect[0]))
            shown.fingerprint = '0123456789abcdef'
            shown.files = shown.files.map(() => '"><img src=x onerror=window.hacked=1>')
            shown.references = ['javascript:window.hacked=1']
            app.nodeOutputs[node.id] = { dbdpo_inspect: [shown] }
            node.onExecuted({ dbdpo_inspect: [shown] })
        }"""
    )
    view.wait_for_timeout(1500)
    sources = view.evaluate(
        f"[...document.querySelectorAll('{PANEL} img')].map(i => i.getAttribute('src')).filter(s => s)"
    )
    assert sources and all("/dreambooth_dpo/preview?" in source for source in sources)
    assert view.evaluate("window.hacked") is None
    assert view.evaluate(f"document.querySelectorAll('{PANEL} script, {PANEL} b, {PANEL} [onerror]').length") == 0


def test_the_graph_keeps_decisions_and_other_tabs_come_back(server: Server, view):
    opened(view, server)
    view.locator(PANEL).focus()
    press(view, "ArrowRight", "s")
    mine, saved = edits(view), view.evaluate("app.graph.serialize()")
    # On the cloud the panel preloads thumbnails; what has not come yet must not disturb the page that is left.
    view.evaluate("document.querySelector('.dbdpo-cloud').dispatchEvent(new PointerEvent('pointerenter'))")
    view.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    view.wait_for_function("!app.graph._nodes.some(n => n.type === 'DBDPO_InspectPairs')")
    view.evaluate("app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    view.wait_for_function("app.graph._nodes.some(n => n.type === 'DBDPO_InspectPairs')")
    ready(view)
    assert edits(view) == mine
    changed(view, 1)
    load(view, saved)
    says(view, "Press Run: the pairs will be shown here")
    assert edits(view) == mine
    assert SWAPPED in summary(view, server)
    ready(view)
    changed(view, 1)


def test_inside_a_subgraph(server: Server, view):
    load(view, workflow(server))
    view.evaluate(f"title => {{ app.canvas.graph.convertToSubgraph(new Set([{NODE}])) }}", "")
    assert run(view, server)["status"]["status_str"] == "success"
    view.evaluate("() => { const n = app.graph._nodes.find(n => n.subgraph); app.canvas.openSubgraph(n.subgraph, n) }")
    view.wait_for_timeout(1500)
    view.evaluate(
        """() => {
            const ds = app.canvas.ds, node = app.canvas.graph._nodes[0]
            ds.scale = 0.7
            ds.offset[0] = 150 - node.pos[0]
            ds.offset[1] = 180 - node.pos[1]
            app.canvas.setDirty(true, true)
        }"""
    )
    ready(view)
    view.locator(PANEL).focus()
    press(view, "s")
    changed(view, 1)
    assert SWAPPED in summary(view, server)


@PANEL_ALONE
def test_a_candidate_without_a_score_is_left_out_of_the_plane_alone(server: Server, view):
    """Some scorers give none to some pictures, such as a face scorer without a face: the others keep their places."""
    opened(view, server)
    shown = payload(view)
    paired = {place for pair in shown["pairs"] for place in (pair["winner"], pair["loser"])}
    position = next(i for i in range(len(shown["files"])) if i not in paired)
    places = view.evaluate(POINTS)
    with RunFolder(server.folder / "output" / "dreambooth_dpo" / shown["run"]) as folder:
        names = folder._db.execute("SELECT DISTINCT scorer, fingerprint FROM scores WHERE set_name = ?", [shown["set"]])
        name, mark = next(row for row in names if row[0].startswith("fidelity"))
        score = folder.scores(shown["set"], name)[position]
        folder.add_scores(shown["set"], name, mark, [position], [float("nan")])
        try:
            view.locator(PANEL).focus()
            press(view, "k")
            run(view, server)
            now = payload(view)
        finally:
            folder.add_scores(shown["set"], name, mark, [position], [score])
    assert [i for i, x in enumerate(now["x"]) if x is None] == [position] and now["fidelity"][position] is None
    assert len(now["pairs"]) == len(shown["pairs"]) and view.evaluate(POINTS) == places - 1
    press(view, "m", "Home", *["ArrowRight"] * position)
    says(view, f"Candidate {position + 1} of {len(shown['prompt'])}")
    assert "F none  A 0." in view.locator(".dbdpo-figures figure:not([hidden])").first.inner_text()


POINTS = """[...document.querySelectorAll('.dbdpo-cloud path')].filter(p => p.classList.contains('dbdpo-point'))
    .map(p => (p.getAttribute('d') ?? '').split('M').length - 1).reduce((a, b) => a + b)"""
"""Number of marks in the plane."""
