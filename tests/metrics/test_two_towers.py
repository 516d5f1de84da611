"""Tests CLIP, SigLIP and SigLIP 2 in transformers' form against transformers' own forward, and PickScore's score."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from judge_models import SIDE, write_towers
from safetensors.torch import load_file, save_file

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.metrics.augmented import AugmentedEmbedder
from dreambooth_dpo.metrics.embedders import OpenClipEmbedder, load_embedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.scorers import AlignmentScorer, QualityScorer
from dreambooth_dpo.metrics.sets import concept_scorers, role_of, with_quality
from dreambooth_dpo.metrics.two_towers import TwoTowerEmbedder

TEXTS = ["a photo of a sks robot in snow", "a Red bear"]
KINDS = ("clip", "siglip", "siglip2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("towers")
    return {kind: write_towers(root / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)


def logits_by_hand(folder: Path, images: np.ndarray, texts: list[str]) -> np.ndarray:
    """logits_per_image [n, m] of transformers' own model, processor and tokenizer, as a model's page tells it."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    siglip = "siglip" in folder.name
    tokens = AutoTokenizer.from_pretrained(folder)(
        [t.lower() for t in texts],
        padding="max_length" if siglip else True,
        max_length=24,
        truncation=True,
        return_tensors="pt",
    )
    given = {"input_ids": tokens["input_ids"]} if siglip else dict(tokens)
    given.pop("token_type_ids", None)
    pixels = AutoImageProcessor.from_pretrained(folder)(list(images), return_tensors="pt")
    with torch.no_grad():
        return AutoModel.from_pretrained(folder).eval()(**given, **pixels).logits_per_image.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_cosines_scale_and_bias_give_the_models_own_logits(folders, images, kind: str):
    embedder = load_embedder(folders[kind])
    assert isinstance(embedder, TwoTowerEmbedder) and embedder.name == f"{kind} {kind}"
    rows, texts = embedder.embed_images(images), embedder.embed_texts(TEXTS)
    assert rows.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    theirs = logits_by_hand(folders[kind], images, TEXTS)
    np.testing.assert_allclose(embedder.scale * rows @ texts.T + embedder.bias, theirs, atol=2e-4)
    assert np.ptp(theirs) > 0.01
    assert len(embedder.embed_images(images[:0])) == len(embedder.embed_texts([])) == 0


def test_siglip_texts_are_lower_case_and_padded(folders):
    """A padded text differs from an unpadded one, as SigLIP's tower sees the padding; case does not count."""
    embedder = load_embedder(folders["siglip"])
    one, other = embedder.embed_texts(["A RED Bear", "a red bear"])
    np.testing.assert_array_equal(one, other)
    ids = embedder._tokenizer("a red bear", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        bare = embedder._model.get_text_features(input_ids=ids).pooler_output[0]
    assert np.abs((bare / bare.norm()).numpy() - one).max() > 1e-3


def test_pickscore_is_scale_times_cosine_of_the_text_without_identifier(folders, images):
    embedder, concept = load_embedder(folders["clip"]), Concept("sks", "robot", images)
    scorer = QualityScorer(embedder, concept.without_identifier, identifier="sks")
    said = ["a photo of a robot in snow", "a Red bear"]
    theirs = np.diag(logits_by_hand(folders["clip"], images, said))
    np.testing.assert_allclose(scorer.score(images, TEXTS), theirs, atol=2e-4)
    same = AlignmentScorer(embedder, concept.without_identifier, identifier="sks")
    assert scorer.fingerprint != same.fingerprint and len(scorer.score(images[:0], [])) == 0


def test_quality_needs_a_clip_of_transformers(folders, images):
    with pytest.raises(MetricsError, match=r"siglip siglip cannot score quality: this needs a CLIP"):
        QualityScorer(load_embedder(folders["siglip"]), str)
    with pytest.raises(MetricsError, match="cannot score quality"):
        QualityScorer(AugmentedEmbedder(load_embedder(folders["clip"])), str)


def test_quality_is_a_guard_or_on_request_a_reward_of_alignment(folders, images, reward_folder):
    concept, reward = Concept("sks", "robot", images), OpenClipEmbedder(reward_folder)
    found, pick = concept_scorers(reward, None, concept), load_embedder(folders["clip"])
    guarded, trained = (with_quality(found, pick, [reward], concept, t) for t in (False, True))
    assert [s.name for s in guarded.judges] == [
        "diversity",
        "saturation",
        "quality",
    ] and guarded.rewards == found.rewards
    assert role_of("quality")[0] == "guard" and role_of("quality")[2] is True
    assert [s.name for s in trained.rewards] == ["fidelity", "alignment", "alignment_2"]
    assert trained.judges == found.judges
    with pytest.raises(MetricsError, match=r"the quality scorer .* has the same weights as the reward scorer"):
        with_quality(concept_scorers(pick, None, concept), pick, [pick], concept)


@pytest.mark.parametrize("lost", ["config.json", "preprocessor_config.json", "model.safetensors", "tokenizer"])
def test_incomplete_folders_are_refused(folders, tmp_path, lost: str):
    folder = tmp_path / "copy"
    shutil.copytree(folders["clip"], folder, ignore=lambda _, names: [n for n in names if n.startswith(lost)])
    with pytest.raises(MetricsError, match=rf"lacks (the )?{lost}(?s:.*)hf download"):
        TwoTowerEmbedder(folder)


def test_wrong_kinds_weights_and_parts_are_refused(folders, dino_folder, tmp_path):
    shutil.copytree(dino_folder, tmp_path / "dino")
    with pytest.raises(MetricsError, match=r"holds a model of type 'dinov2': an image-text model is needed"):
        TwoTowerEmbedder(tmp_path / "dino")
    short = Path(shutil.copytree(folders["siglip"], tmp_path / "short"))
    weights = load_file(short / "model.safetensors")
    del weights["logit_scale"]
    save_file(weights, short / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MetricsError, match=r"lack 1 of the model's tensors \(logit_scale"):
        TwoTowerEmbedder(short)
    parts = Path(shutil.copytree(folders["siglip"], tmp_path / "parts"))
    (parts / "model.safetensors").unlink()
    index = {"weight_map": {"logit_scale": "model-00001-of-00002.safetensors"}}
    (parts / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(MetricsError, match=r"lacks model-00001-of-00002\.safetensors"):
        TwoTowerEmbedder(parts)
