"""Rating pairs one by one on the full screen: keys, clicks, what the graph gets, and the agreement after it."""

from __future__ import annotations

import os

import pytest
from browsing import run
from hosting import Server
from inspector_page import PANEL, button, edits, look_at, opened, payload, press, says

DIALOG = "dialog.dbdpo-rate"


def pictures(view) -> list[str]:
    """Names of the two pictures shown, once both are loaded."""
    view.wait_for_function(
        f"[...document.querySelectorAll('{DIALOG} .dbdpo-rate-pictures img')]"
        ".every(i => !i.hidden && i.complete && i.naturalWidth > 0)"
    )
    sources = view.evaluate(
        f"[...document.querySelectorAll('{DIALOG} .dbdpo-rate-pictures img')].map(i => i.getAttribute('src'))"
    )
    assert all("/dreambooth_dpo/picture?" in source for source in sources)
    return [source.split("name=")[1] for source in sources]


def preferred(shown: dict, sides: list[str], place: int) -> tuple[str, str]:
    """The pair on the screen, and the decision that prefers the picture at this place."""
    names = shown["files"]
    pair = next(p for p in shown["pairs"] if {names[p["winner"]], names[p["loser"]]} == set(sides))
    return pair["id"], "keep" if names[pair["winner"]] == sides[place] else "swap"


def test_keys_and_clicks_decide_undo_and_come_into_the_graph(server: Server, view):
    opened(view, server)
    shown = payload(view)
    view.locator(PANEL).focus()
    press(view, "b")
    view.locator(DIALOG).wait_for()
    expected: dict[str, str] = {}
    for key in ("ArrowLeft", "ArrowRight", "click", "Space"):
        sides = pictures(view)
        place = 0 if key in ("ArrowLeft", "Space") else 1
        name, decision = preferred(shown, sides, place)
        if key == "click":
            view.locator(f"{DIALOG} .dbdpo-rate-pictures img").nth(1).click()
        else:
            press(view, key)
        expected[name] = "reject" if key == "Space" else decision
        assert edits(view)["pairs"] == expected
        view.wait_for_timeout(100)
    first = list(expected)
    assert first == [p["id"] for p in shown["pairs"][:4]], "closest to the boundary first"
    if folder := os.environ.get("DBDPO_SHOTS"):
        pictures(view)
        view.screenshot(path=f"{folder}/rate.png")
    press(view, "Control+z")
    view.wait_for_timeout(800)  # ComfyUI's own undo would load the graph again
    del expected[first[3]]
    assert edits(view)["pairs"] == expected and view.locator(DIALOG).is_visible()
    press(view, "z", "z", "z", "z", "ArrowDown")
    assert edits(view)["pairs"] == {first[0]: "reject"}, "not more is taken back than was decided here"
    nodes = view.evaluate("app.graph._nodes.length")
    press(view, "n", "Delete", "Escape")
    assert not view.locator(DIALOG).count() and view.evaluate("app.graph._nodes.length") == nodes
    assert edits(view)["pairs"] == {first[0]: "reject"}
    assert view.evaluate(f"document.querySelector('{PANEL}').contains(document.activeElement)")


@pytest.mark.front_ends("pinned", why="what the panel says: the same in any page")
def test_after_twenty_answers_the_node_says_how_often_scorers_agree(server: Server, view):
    opened(view, server, pairs={"max_pairs_per_prompt": 4, "margin": 0.05})
    count = len(payload(view)["pairs"])
    assert count >= 22
    says(view, "0 of 20 decisions; 20 more decisions to be measured")
    button(view, "Rate one by one (B)").click()
    view.get_by_text("20 more until the scorers' agreement").wait_for()
    press(view, *["ArrowLeft"] * 22)
    view.get_by_text(f"22 of {count} pairs rated").wait_for()
    press(view, "Escape")
    ways = list(edits(view)["pairs"].values())
    assert len(ways) == 22 and 4 <= ways.count("keep") <= 18, "sides are shuffled"
    assert run(view, server)["status"]["status_str"] == "success"
    first = f"Agreement with your 22 preferences ({ways.count('keep')} kept, {ways.count('swap')} swapped; 0 rejected"
    says(view, first)
    look_at(view)
    view.locator(f"{PANEL} .dbdpo-agreement summary").click()
    says(view, f"- The pair rule (lambda_harmonic): {ways.count('keep')} of 22")
    if folder := os.environ.get("DBDPO_SHOTS"):
        view.screenshot(path=f"{folder}/agreement.png")
