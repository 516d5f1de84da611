"""The curves of DPO Rounds in a real browser: one after the other while it trains, and again after a reload and with
earlier rounds at hand.
"""

from __future__ import annotations

import pytest
from browsing import come_back, finished, look_at, open_template, overlaps, press_run, set_widgets, tab, unlink
from hosting import Server, executed
from toy_graphs import FEW_PROMPTS

pytestmark = [
    pytest.mark.front_ends("nodes2", why="what comes back; the quickstart is watched on the canvas too"),
    pytest.mark.slow,  # three rounds watched for two minutes; test_quickstart.py watches one round grow and come back
]
STEPS = 6
SMALL = {
    "DBDPO_LoadToybox": {"steps": 10},
    "DBDPO_PromptSet": FEW_PROMPTS,
    "DBDPO_Rounds": {
        "rounds": 2, "keep": "last", "candidates_per_prompt": 4, "steps": 5, "max_uses": 10,
        "train_steps": STEPS, "pairs_per_step": 4,
    },
    "DBDPO_Evaluate": {"seeds_per_prompt": 2},
}  # fmt: skip


def run(view, server: Server) -> dict:
    status, answer = press_run(view)
    assert status == 200, answer
    history = finished(view, server, answer["prompt_id"], 300)
    assert history["status"]["status_str"] == "success", history["status"]
    return history


def shows(view, rounds: int) -> None:
    """The curves of so many rounds are on the node."""
    look_at(view, "DBDPO_Rounds", 0.5)
    view.wait_for_function(
        "points => document.querySelector('.dbdpo-curve')?.dataset.points === points", arg=str(rounds * STEPS)
    )
    assert f"{rounds} rounds, step {rounds * STEPS} of {rounds * STEPS}" in view.locator(".dbdpo-curve").inner_text()
    assert view.locator(".dbdpo-curve-border").count() == rounds - 1


@pytest.fixture
def ran(server: Server, browser):
    """The page after a run of two rounds."""
    with tab(browser, server) as view:
        open_template(view, "toybox_three_rounds")
        view.wait_for_function("app.graph._nodes.some(n => n.type === 'DBDPO_Rounds')")
        view.wait_for_timeout(500)
        assert overlaps(view) == []
        for name in FEW_PROMPTS:
            unlink(view, "DBDPO_PromptSet", name)
        set_widgets(view, SMALL)
        look_at(view, "DBDPO_Rounds", 0.5)
        run(view, server)
        yield view
        assert not view.errors
        assert not view.left


def test_the_rounds_come_back_after_a_reload_and_with_earlier_ones_at_hand(server: Server, ran):
    shows(ran, 2)
    assert overlaps(ran) == []
    come_back(ran, "DBDPO_Rounds")
    shows(ran, 2)
    # All is at hand: nothing is trained, and no message comes.
    rounds = str(ran.evaluate("app.graph._nodes.find(n => n.type === 'DBDPO_Rounds').id"))
    assert rounds not in executed(run(ran, server))
    shows(ran, 2)
    come_back(ran, "DBDPO_Rounds")
    shows(ran, 2)
    # Messages come of the third round alone.
    set_widgets(ran, {"DBDPO_Rounds": {"rounds": 3}})
    run(ran, server)
    shows(ran, 3)
