"""Variety among right pictures: its arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreambooth_dpo.benchmarks.methods.variety import (
    ABOVE_WORLD,
    KINDS,
    RENDERS,
    _change,
    above_world,
    among_right,
    spread,
    vendi_of_pairs,
    vendi_of_world,
)
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


class _ByPlace:
    """Embeds the first picture of a call along one axis and the others along another."""

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        return np.eye(2)[(np.arange(len(images)) > 0).astype(int)]


def test_variety_of_the_world_by_hand():
    """Of 12 renders 11 of the 66 pairs are orthogonal (score 2), the rest equal (1): 1 + 11 / 66. All are looked at as
    the decoder would show them.
    """
    toy, shown = concept_from_seed(0), []
    prompts = [f"a photo of a {toy.noun} on grass", f"a photo of a {toy.noun} in snow"]

    def through(images: np.ndarray) -> np.ndarray:
        shown.append(images)
        return images

    assert vendi_of_world(toy, prompts, _ByPlace(), through) == pytest.approx([1 + 11 / 66] * 2)
    assert [len(images) for images in shown] == [RENDERS] * 2 and not np.array_equal(*shown)


def test_above_the_world_over_prompts_with_two_right_pictures_by_hand(tmp_path):
    """Three pictures of a prompt, the first unlike the others, all right: (2 + 2 + 1) / 3 less 1 + 11 / 66 is 0.5. The
    second prompt has one right picture at the start, so that it never counts; after a round the first prompt's two
    right ones are equal: 1 less 1 + 11 / 66.
    """
    toy = concept_from_seed(0)
    prompts = [f"a photo of a {toy.noun} {where}" for where in ("on grass", "in snow") for _ in range(3)]
    with RunFolder(tmp_path) as run:
        for number, right in enumerate(([1.0, 1, 1, 1, 0, 0], [0.0, 1, 1, 1, 1, 1])):
            members = [Candidate(i, i // 3, p, i, 0, i) for i, p in enumerate(prompts)]
            pictures = np.stack(list(toy.to_concept().references))[[0, 1, 2, 0, 1, 2]]
            run.add_chunk(f"evaluation_{number}", members, torch.zeros(6, 4, 8, 8), pictures)
            run.add_scores(f"evaluation_{number}", "oracle_all_right", "f", range(6), np.asarray(right))
        run.set_fact("unseen", [prompts[-1]])
        found = above_world(run, toy, [0, 1], _ByPlace(), lambda images: images)[ABOVE_WORLD]
    assert found["all"] == found["seen"] == pytest.approx([0.5, -11 / 66])
    assert np.isnan(found["unseen"]).all()
