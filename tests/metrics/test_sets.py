"""Tests the scorers of a concept: names, roles, and which embedder may score which axis."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.metrics.augmented import AugmentedEmbedder
from dreambooth_dpo.metrics.backgrounds import BackgroundScorer
from dreambooth_dpo.metrics.embedders import DinoV2Embedder, OpenClipEmbedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.sets import ROLES, concept_scorers, reward_scorers, role_of


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def concept(photos) -> Concept:
    return Concept("sks", "robot", photos)


@pytest.fixture(scope="module")
def clip(reward_folder) -> OpenClipEmbedder:
    return OpenClipEmbedder(reward_folder)


@pytest.fixture(scope="module")
def dino(dino_folder) -> DinoV2Embedder:
    return DinoV2Embedder(dino_folder)


def test_roles_of_all_names():
    assert {name: role_of(name) for name in ROLES} == ROLES
    assert role_of("fidelity_2") == ("reward", "Fidelity (2nd scorer)", True)
    assert [role_of(f"alignment_{n}")[1] for n in (3, 4, 11, 12, 22, 101)] == [
        f"Alignment ({n} scorer)" for n in ("3rd", "4th", "11th", "12th", "22nd", "101st")
    ]
    assert [role_of(n) for n in ("fidelity_1", "fidelity_02", "fidelity_", "judge_fidelity_2", "oracle_hat")] == [
        None
    ] * 5
    assert role_of("judge_background") == ("guard", "Likeness to the photos' place (judge)", False)


def test_one_scorer_alone_or_in_a_list_is_the_same(clip, concept):
    alone, listed = reward_scorers(clip, concept), reward_scorers([clip], concept)
    assert [(s.name, s.fingerprint) for s in alone] == [(s.name, s.fingerprint) for s in listed]
    assert [s.name for s in alone] == ["fidelity", "alignment"]


def test_further_scorers_are_numbered_and_dino_adds_fidelity_only(clip, dino, concept, photos):
    scorers = {s.name: s for s in reward_scorers([clip, dino, AugmentedEmbedder(clip)], concept)}
    assert list(scorers) == ["fidelity", "alignment", "fidelity_2", "fidelity_3", "alignment_3"]
    assert len({s.fingerprint for s in scorers.values()}) == 5
    rows = dino.embed_images(photos).astype(np.float64)
    np.testing.assert_allclose(scorers["fidelity_2"].score(photos, [""] * 3), rows @ rows.mean(axis=0), atol=1e-6)


def test_wrong_sets_of_scorers_are_refused(clip, dino, concept):
    with pytest.raises(MetricsError, match="there is no reward scorer: name at least one"):
        reward_scorers([], concept)
    with pytest.raises(
        MetricsError, match=r"open_clip reward is given twice as a reward.*choose another model, or leave it out"
    ):
        reward_scorers([clip, dino, clip], concept)
    with pytest.raises(MetricsError, match="has no text tower"):
        reward_scorers([dino, clip], concept)


def test_a_judge_with_the_rewards_weights_is_refused_whatever_its_folder(clip, dino, reward_folder, concept, tmp_path):
    copy = tmp_path / "another name"
    shutil.copytree(reward_folder, copy)
    config = copy / "open_clip_config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    for judge in (clip, OpenClipEmbedder(copy), AugmentedEmbedder(clip)):
        for reward in (clip, [dino, clip][::-1], AugmentedEmbedder(clip)):
            with pytest.raises(MetricsError, match=r"the judge .* has the same weights as the reward scorer"):
                concept_scorers(reward, judge, concept)
    with pytest.raises(MetricsError, match="same weights"):
        concept_scorers([clip, dino], dino, concept)


def test_a_judge_of_the_rewards_architecture_is_said(clip, dino, reward_folder, concept, tmp_path):
    """Other weights, same architecture: no judge of another backbone."""
    copy = Path(shutil.copytree(reward_folder, tmp_path / "other"))
    weights = load_file(copy / "open_clip_model.safetensors")
    weights = {k: v * 1.01 if v.is_floating_point() and v.ndim > 1 else v for k, v in weights.items()}
    save_file(weights, copy / "open_clip_model.safetensors")
    (doubt,) = concept_scorers(clip, OpenClipEmbedder(copy), concept).doubts
    assert doubt.startswith("The judge (open_clip other) has the architecture of the reward scorer (open_clip ")
    assert concept_scorers(clip, dino, concept).doubts == concept_scorers(clip, None, concept).doubts == ()


def test_background_guard_needs_masks_and_a_visible_background(clip, dino, concept, photos):
    """By the judge, else by the first reward; there is none without masks, or where the subject fills every photo."""
    half, white = np.zeros(photos.shape[:3], np.uint8), np.full(photos.shape[:3], 255, np.uint8)
    half[:, :, 32:] = 255
    masked, filled = (Concept("sks", "robot", photos, masks=m) for m in (half, white))
    for reward, judge, watch, name, by in (
        ([clip, dino], None, clip, "background", "reward"),
        (clip, dino, dino, "judge_background", "judge"),
    ):
        judges = {s.name: s for s in concept_scorers(reward, judge, masked).judges}
        assert list(judges)[-3:] == [name, "diversity", "saturation"]
        assert judges[name].fingerprint == BackgroundScorer(watch, photos, half).fingerprint
        assert role_of(name) == ("guard", f"Likeness to the photos' place ({by})", False), "it must say what measures"
        for other in (concept, filled):
            assert not [s.name for s in concept_scorers(reward, judge, other).judges if "background" in s.name]
