"""Tests what nodes show: outputs that are sent again from the cache, and texts on the canvas."""

from __future__ import annotations

import pytest
from layouts import TEXTS
from shown import nodes, with_text


def test_nodes_are_found_in_the_source():
    """The other tests here depend on this parsing: two nodes of each kind, by hand."""
    found = {node.name: node for node in nodes()}
    assert len(found) > 10
    assert [found[f"DBDPO_{name}"].text for name in ("SaveLora", "TrainStep", "Score", "Concept")] == [
        True,
        True,
        False,
        True,
    ]
    assert [found[f"DBDPO_{name}"].shows for name in ("Score", "PreviewPairs", "Concept", "LoadScorer")] == [
        True,
        True,
        True,
        False,
    ]
    assert [node.name for node in nodes() if node.expands] == ["DBDPO_Rounds"]


@pytest.mark.parametrize("node", nodes(), ids=lambda node: node.name)
def test_nodes_that_show_something_send_it_again(node):
    assert node.again == node.shows, (
        f"{node.name}: a schema has **shown_again() where execute gives ui, and nowhere else"
    )


def test_layout_reserves_space_for_every_text():
    assert set(with_text()) == TEXTS
