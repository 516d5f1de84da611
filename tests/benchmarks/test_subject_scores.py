"""Tests the agreement of scorers with the oracle: rank correlations by hand, and the command on renders."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth_dpo.benchmarks.subject_scores import __main__ as command
from dreambooth_dpo.benchmarks.subject_scores import agreement
from dreambooth_dpo.benchmarks.subject_scores.agreement import ranks, run_concept, scores_of, spearman, within_prompts
from dreambooth_dpo.dpo_core.records import Candidate
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.toybox.concepts import concept_from_seed, in_several_places
from dreambooth_dpo.toybox.world import Scene, render


def test_rank_correlation_by_hand() -> None:
    """Ranks 1 2 3 against 1 3 2: deviations -1 0 1 and -1 1 0, so 1 / 2. With a tie, 1 2 3 against 1.5 1.5 3:
    (0.5 + 1) / sqrt(2 * 1.5) = 0.866025."""
    np.testing.assert_array_equal(ranks(np.asarray([5.0, 1.0, 5.0, 7.0])), [2.5, 1.0, 2.5, 4.0])
    assert spearman(np.asarray([0.1, 0.2, 0.9]), np.asarray([1.0, 30.0, 2.0])) == pytest.approx(0.5)
    assert spearman(np.asarray([0.1, 0.2, 0.9]), np.asarray([0.0, 0.0, 1.0])) == pytest.approx(0.866025, abs=1e-6)
    assert np.isnan(spearman(np.arange(3.0), np.ones(3)))


def test_prompts_whose_truth_does_not_vary_are_left_out() -> None:
    scores, truth = np.asarray([1.0, 2, 3, 1, 2, 3]), np.asarray([0.0, 1, 1, 1, 1, 1])
    assert within_prompts(scores, truth, np.repeat([0, 1], 3)) == pytest.approx([0.866025], abs=1e-6)


def test_with_several_places_the_subject_decides_without_masks() -> None:
    """The subject elsewhere scores above a subject of other colours in a photo's place, by patches that recur.

    Photos on one background: no recurrence tells subject and place apart, and the order turns round.
    """
    toy = concept_from_seed(0)
    wrong = [c for c in ("red", "yellow", "pink") if c not in (toy.body, toy.belly)][:2]
    others = in_several_places(toy)
    for view, place, right in ((others, others_place(toy), True), (toy, toy.background, False)):
        own = render(Scene(toy.noun, toy.body, toy.belly, "sunset" if place != "sunset" else "night"), 77)
        strange = render(Scene(toy.noun, *wrong, place), 77)
        found = scores_of(view, np.stack([own, strange]), [])
        assert (found["patches"][0] > found["patches"][1]) == right
        assert found["picture, masks"][0] > found["picture, masks"][1]


def others_place(toy) -> str:
    """The background of the first photo of the concept in several places."""
    from dreambooth_dpo.toybox.oracle import Oracle

    return Oracle().read(in_several_places(toy).references[:1], [toy.noun])[0].background


def test_the_command_prints_and_writes_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Candidates are renders here: the concept and a stranger, each on two backgrounds of two prompts."""
    toy = concept_from_seed(0)
    shared = tmp_path / "concept_0" / "shared"
    looks, places = [(toy.body, toy.belly), ("pink", "red")], ["grass", "brick"]
    scenes = [Scene(toy.noun, *look, place) for _ in range(2) for place in places for look in looks]
    prompts = [f"a photo of a {toy.identifier} {toy.noun} {where}" for where in ("on grass", "by a brick wall")]
    planned = [Candidate(i, i // 4, prompts[i // 4], i, 0, i) for i in range(8)]
    with RunFolder(shared) as run:
        images = np.stack([render(scene, i) for i, scene in enumerate(scenes)])
        run.add_chunk("round_0", planned, torch.zeros(8, 4, 2, 2), images)
    (shared / "drawn").touch()
    monkeypatch.setattr(
        command, "by_concept", lambda call, concepts, jobs, *rest: {c: call(c, *rest) for c in concepts}
    )
    monkeypatch.setattr(sys, "argv", ["x", "--concepts", "0", "--out", str(tmp_path), "--sharpness", "0.1"])
    command.main()
    found = json.loads((tmp_path / "subject_scores.json").read_text(encoding="utf-8"))
    for photos in agreement.PHOTOS:
        assert set(found["summary"][photos]) == {*agreement.WAYS, "patches, 0.1"}
        # Truth 2 0 2 0: deviations of ranks 1 -1 1 -1. Two above two: 4 / sqrt(5 * 4) = 0.894427.
        of = found["summary"][photos]["picture, masks"]["subject"]
        assert of["mean"] == pytest.approx(0.894427, abs=1e-6)
        assert of["prompts"] == 2
    assert "photos on several backgrounds" in capsys.readouterr().out
    assert run_concept(0, tmp_path, [])[agreement.PHOTOS[0]].keys() == set(agreement.WAYS)
