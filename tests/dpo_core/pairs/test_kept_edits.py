"""Decisions stored in a run: which node gets which, and decisions of older versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreambooth_dpo.dpo_core.pairs.edits import Edits, Kept, Place, keep_decisions, kept_decisions
from dreambooth_dpo.dpo_core.run.folder import RunFolder

MARK = "0123456789abcdef"


def edits(pairs: dict | None = None, candidates: dict | None = None, fingerprint: str = MARK) -> Edits:
    return Edits(fingerprint=fingerprint, pairs=pairs or {}, candidates=candidates or {})


def test_decisions_are_stored_by_the_candidates_fingerprint(tmp_path: Path):
    mine = edits({"0-1": "swap"}, {"3": "up"})
    with RunFolder(tmp_path) as run:
        assert kept_decisions(run, MARK) is None
        keep_decisions(run, mine)
        keep_decisions(run, edits({"0-1": "reject"}, fingerprint="f" * 16))
    with RunFolder(tmp_path) as run:
        assert kept_decisions(run, MARK) == Kept(mine, here=True)
        keep_decisions(run, edits({"0-1": "keep"}))
        assert kept_decisions(run, MARK).edits == edits({"0-1": "keep"})
        assert len(run.facts(f"decisions_{MARK}")) == 1, "one node's own are replaced"


def test_two_inspectors_get_their_own_decisions(tmp_path: Path):
    left, right = Place("a graph", "7", "pairs"), Place("a graph", "8", "pairs")
    with RunFolder(tmp_path) as run:
        keep_decisions(run, edits({"0-1": "swap"}), left)
        keep_decisions(run, edits({"0-1": "reject"}), right)
        assert kept_decisions(run, MARK, left) == Kept(edits({"0-1": "swap"}), here=True)
        assert kept_decisions(run, MARK, right) == Kept(edits({"0-1": "reject"}), here=True)
        # With another pair rule upstream, still its own.
        assert kept_decisions(run, MARK, Place("a graph", "7", "other pairs")).edits == edits({"0-1": "swap"})


def test_an_inspector_without_own_decisions_gets_the_best_match(tmp_path: Path):
    """A new node, a renamed workflow, a call without a page.

    Order: decisions on the same pairs, then of the same node, then the latest.
    """
    left, right = Place("a graph", "7", "narrow"), Place("a graph", "8", "wide")
    with RunFolder(tmp_path) as run:
        keep_decisions(run, edits({"0-1": "swap"}), left)
        keep_decisions(run, edits({"0-1": "reject"}), right)

        def found(*place: str) -> Kept | None:
            return kept_decisions(run, MARK, Place(*place))

        assert found("another graph", "1", "narrow") == Kept(edits({"0-1": "swap"}), here=False)
        assert found("another graph", "7", "unknown") == Kept(edits({"0-1": "swap"}), here=False)
        assert found("", "", "") == Kept(edits({"0-1": "reject"}), here=False)
        keep_decisions(run, edits({"0-1": "keep"}), left)
        assert found("a graph", "9", "unknown").edits == edits({"0-1": "keep"})


def test_decisions_of_an_older_version_are_found_and_not_deleted(tmp_path: Path):
    """They were stored under the candidates' fingerprint alone."""
    old = edits({"0-1": "swap", "2-1": "reject"})
    with RunFolder(tmp_path) as run:
        run.set_fact(f"decisions_{MARK}", old.model_dump(mode="json"))
        assert kept_decisions(run, MARK, Place("a graph", "7", "pairs")) == Kept(old, here=False)
        keep_decisions(run, edits({"0-1": "keep"}), Place("a graph", "8"))
        assert Edits.model_validate(run.fact(f"decisions_{MARK}")) == old


@pytest.mark.parametrize(
    "fact", [{"version": 99}, {"edits": {"version": 99}}, {"edits": 3, "number": "x"}, [1], "text", None]
)
def test_stored_decisions_that_cannot_be_parsed_are_ignored(fact: object, tmp_path: Path):
    with RunFolder(tmp_path) as run:
        run.set_fact(f"decisions_{MARK}", fact)
        assert kept_decisions(run, MARK) is None
        keep_decisions(run, edits({"0-1": "swap"}))
        assert kept_decisions(run, MARK).edits == edits({"0-1": "swap"})
