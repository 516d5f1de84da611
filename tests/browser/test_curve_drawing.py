"""The curve's own parts, fed by hand in a page: alarm lines, rounds in a row, missing numbers, and what is kept of the
server's messages.
"""

from __future__ import annotations

import pytest
from browsing import tab

pytestmark = pytest.mark.front_ends("pinned", why="the curve's own parts are called: no front end has a part in it")

DRAW = """async rounds => {
    const { Plot } = await import("/extensions/dreambooth_dpo/curve/plot.js")
    const plot = new Plot()
    plot.root.style.cssText = "position: fixed; left: 0; top: 0; width: 420px; height: 230px; z-index: 9999"
    document.body.append(plot.root)
    plot.show(rounds)
    await new Promise(done => setTimeout(done, 300))
    const count = kind => plot.svg.querySelectorAll(`.dbdpo-curve-${kind}`).length
    const found = {
        words: plot.words.textContent, label: plot.root.getAttribute("aria-label"), alarm: plot.root.dataset.alarm,
        warning: count("warning"), stop: count("stop"), border: count("border"),
        empty: plot.root.classList.contains("dbdpo-curve-empty"),
        markup: plot.svg.outerHTML, columns: plot.svg.querySelector(".dbdpo-curve-raw")?.points.numberOfItems,
    }
    plot.root.remove()
    return found
}"""
KEEP = """async ([workflow, messages]) => {
    const { begin, leave, rounds, settle, take } = await import("/extensions/dreambooth_dpo/curve/store.js")
    const seen = []
    for (const message of messages) {
        if (message === "settle") settle()
        else if (message.begin) begin(message.begin)
        else if (message.leave) leave(message.leave, () => message.curves)
        else take({ workflow, ...message })
        seen.push(rounds(workflow, id => id === "7")?.map(round => round.points.map(point => point[0])) ?? null)
    }
    return seen
}"""


@pytest.fixture(scope="module")
def view(server, browser):
    """One page for all: nothing is left in it."""
    with tab(browser, server) as opened:
        yield opened
        assert not opened.errors


def training(errors: list[float | None], steps: int = 10) -> dict:
    points = [[i, 0.6, 0.001, error, error] for i, error in enumerate(errors)]
    return {"steps": steps, "level": 0.693, "warning": 0.01, "collapse": 0.04, "points": points}


def test_before_the_first_step_a_line_tells_what_will_be_here(view):
    found = view.evaluate(DRAW, None)
    assert found["empty"] and "plotted here during training" in found["words"]


def test_an_error_below_the_warning_leaves_the_alarm_off(view):
    found = view.evaluate(DRAW, [training([0.0, 0.001, 0.002])])
    assert (found["alarm"], found["warning"], found["stop"], found["border"]) == ("off", 1, 0, 0)
    assert found["words"] == "step 3 of 10; winner error below the warning level"
    assert "winner error +0.0020" in found["label"]


def test_an_error_above_the_warning_is_told_and_the_stop_comes_into_sight(view):
    found = view.evaluate(DRAW, [training([0.0, 0.01, 0.03])])
    assert (found["alarm"], found["warning"], found["stop"]) == ("on", 1, 1)
    assert found["words"].endswith("above the warning level")
    assert "above the stop limit" in view.evaluate(DRAW, [training([0.05])])["words"]


def test_rounds_stand_in_a_row(view):
    found = view.evaluate(DRAW, [training([0.001] * 10), training([0.002] * 4)])
    assert (found["border"], found["columns"]) == (1, 14)
    assert found["words"].startswith("2 rounds, step 14 of 20")


def test_missing_numbers_are_left_out(view):
    found = view.evaluate(DRAW, [{**training([0.001, None, 0.002]), "level": None}])
    assert "NaN" not in found["markup"] and "null" not in found["markup"]


def test_messages_add_up_and_a_whole_one_mends_gaps(view):
    def sent(*steps: int, whole: bool = False, source: str = "7") -> dict:
        return {"node": "7", "source": source, "points": [[s, 1, 1, 1, 1] for s in steps], "whole": whole, "steps": 9}

    messages = [{"begin": "a"}, sent(0, 1), sent(2), sent(1, 3, whole=True), "settle"]
    assert view.evaluate(KEEP, ["one", messages]) == [None, [[0, 1]], [[0, 1, 2]], [[1, 3]], None]
    # Nodes of a loop have no output of their own on the canvas: their rounds stay, until the next run.
    loop = [
        {"begin": "b"},
        sent(0, source="7.0.1"),
        sent(0, 1, source="7.0.2"),
        "settle",
        {"begin": "c"},
        sent(0, source="7.0.1"),
    ]
    assert view.evaluate(KEEP, ["two", loop]) == [None, [[0]], [[0], [0, 1]], [[0], [0, 1]], [[0], [0, 1]], [[0]]]
    # They are left once the history has as many, or more: of this run, and not of another.
    read = [{"leave": "other", "curves": 9}, {"leave": "d", "curves": 1}, {"leave": "d", "curves": 2}]
    two = [[0], [1]]
    ended = [{"begin": "d"}, sent(0, source="7.0.1"), sent(1, source="7.0.2"), "settle", *read]
    assert view.evaluate(KEEP, ["three", ended]) == [None, [[0]], two, two, two, two, None]
