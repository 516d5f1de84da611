"""Variety among right pictures: its arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreambooth_dpo.benchmarks.methods.variety import KINDS, _change, among_right, spread, vendi_of_pairs
from dreambooth_dpo.dpo_core.records import Candidate
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.toybox.concepts import concept_from_seed


def test_spread_by_hand():
    """x 0, 1, 2: squares of the pairs 1, 4, 1, half their mean 1; y and size are equal: a third. A wrong one is out."""
    places = np.array([[0.0, 5, 5], [1, 5, 5], [2, 5, 5], [90, 0, 0]])
    assert spread(places, np.array([True, True, True, False])) == pytest.approx(1 / 3)


def test_vendi_of_pairs_by_hand():
    """Equal ones: 1. Orthogonal ones: 2. Of two equal ones and one orthogonal: (1 + 2 + 2) / 3."""
    rows = np.array([[1.0, 0], [1, 0], [0, 1], [0.6, 0.8]])
    assert vendi_of_pairs(rows, np.array([True, True, False, False])) == pytest.approx(1)
    assert vendi_of_pairs(rows, np.array([True, True, True, False])) == pytest.approx(5 / 3)


def test_a_change_is_over_the_prompts_that_have_both():
    """Variances 0.25 and 0.64: 0.8 - 0.5. The second prompt has no right pictures at the start, the third is not asked
    for.
    """
    start, now = np.array([[0.25, 1.2], [np.nan, np.nan], [9, 2]]), np.array([[0.64, 1.1], [0.5, 1.9], [1, 1]])
    asked = np.array([True, True, False])
    assert _change(start, now, asked) == pytest.approx((0.3, -0.1))
    assert np.isnan(_change(start, now, ~np.array([True, False, True]))).all()


class _Embedder:
    def embed_images(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :50].astype(float) + 1


def test_of_a_run_by_part(tmp_path):
    """Right pictures that are drawn apart at the start and are one picture after it: both measures fall."""
    toy = concept_from_seed(0)
    photos = np.stack(list(toy.to_concept().references))[:3]
    prompts = ("seen", "seen", "seen", "new", "new", "new")
    with RunFolder(tmp_path) as run:
        for number, images in enumerate((np.concatenate([photos, photos]), np.stack([photos[0]] * 6))):
            name = f"evaluation_{number}"
            members = [Candidate(i, i // 3, p, i, 0, i) for i, p in enumerate(prompts)]
            run.add_chunk(name, members, torch.zeros(6, 4, 8, 8), images)
            run.add_scores(name, "oracle_all_right", "f", range(6), np.array([1.0, 1, 1, 1, 1, 0]))
        run.set_fact("unseen", ["new"])
        found = among_right(run, toy, [0, 1], _Embedder())
    assert set(found) == set(KINDS)
    for kind in KINDS:
        assert set(found[kind]) == {"all", "seen", "unseen"}
        assert all(values[0] == 0 and values[1] < 0 for values in found[kind].values()), found[kind]
