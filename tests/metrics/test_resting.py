"""Tests that scorers' models leave the GPU between two scores and return for the next.

Without a GPU the tests check that the models are told to move.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreambooth_dpo.metrics.augmented import AugmentedEmbedder
from dreambooth_dpo.metrics.backgrounds import BackgroundScorer
from dreambooth_dpo.metrics.embedders import OpenClipEmbedder
from dreambooth_dpo.metrics.guards import CopyPasteScorer, DiversityScorer
from dreambooth_dpo.metrics.scorers import AlignmentScorer, FidelityScorer
from dreambooth_dpo.toybox.models import weights_folder

RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
MASKS = np.zeros((3, 64, 64), np.uint8)
MASKS[:, 20:40, 20:40] = 255
PROMPTS = ["a robot"] * 3


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch):
    """An embedder that acts as if on a GPU, and records where its model is moved."""
    found, moves = OpenClipEmbedder(weights_folder("reward")), []
    found._shelf, found.device = torch.device("cpu"), torch.device("cpu")  # two objects: "aside" and "home"
    monkeypatch.setattr(found._model, "to", lambda where: moves.append("home" if where is found.device else "aside"))
    return found, moves


def scorers(embedder) -> list:
    return [
        FidelityScorer(embedder, PHOTOS),
        AlignmentScorer(embedder, str),
        CopyPasteScorer(embedder, PHOTOS[:1], PHOTOS[1:]),
        DiversityScorer(embedder),
        BackgroundScorer(embedder, PHOTOS, MASKS),
    ]


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("augmented", [False, True])
def test_every_scorer_leaves_the_gpu_and_returns(embedder, index: int, augmented: bool):
    inner, moves = embedder
    scorer = scorers(AugmentedEmbedder(inner) if augmented else inner)[index]
    scorer.score(PHOTOS, PROMPTS)
    moves.clear()
    scorer.rest()
    assert moves == ["aside"]
    scorer.score(PHOTOS[::-1].copy(), PROMPTS)
    assert moves[1:] and set(moves[1:]) == {"home"}


def test_texts_bring_the_model_back_too(embedder):
    inner, moves = embedder
    inner.rest()
    inner.embed_texts(["a robot"])
    assert moves == ["aside", "home"]


def test_on_a_cpu_nothing_is_moved(monkeypatch: pytest.MonkeyPatch):
    found, moves = OpenClipEmbedder(weights_folder("reward")), []
    monkeypatch.setattr(found._model, "to", moves.append)
    scorer = FidelityScorer(found, PHOTOS)
    scorer.rest()
    scorer.score(PHOTOS, PROMPTS)
    assert moves == []


def test_embedder_managed_by_its_host_needs_no_rest():
    class Hosted:
        name = fingerprint = "hosted"

        def embed_images(self, images):
            return np.ones((len(images), 2), np.float32) / 2**0.5

        def embed_texts(self, texts):
            return None

    scorer = FidelityScorer(Hosted(), PHOTOS)
    scorer.rest()
    assert scorer.score(PHOTOS, PROMPTS) == pytest.approx([1.0] * 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks where a GPU's memory goes: needs one")
def test_gpu_memory_is_freed():
    found = OpenClipEmbedder(weights_folder("reward"), device="cuda")
    before = found.embed_images(PHOTOS)
    found.rest()
    assert next(found._model.parameters()).device.type == "cpu"
    again = found.embed_images(PHOTOS[::-1].copy())[::-1]
    assert next(found._model.parameters()).is_cuda and np.allclose(before, again, atol=1e-5)
