"""Scorers' models under ComfyUI's memory management: every kind embeds what it embeds without it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from judge_models import SIDE, write_towers

from dreambooth_dpo.dpo_core.backends.comfyui import ResidentEmbedder
from dreambooth_dpo.metrics.embedders import load_embedder
from dreambooth_dpo.metrics.scorers import QualityScorer
from dreambooth_dpo.toybox.models import weights_folder

pytestmark = pytest.mark.usefixtures("as_nodes_run")
TOWERS = ("clip", "siglip", "siglip2")
KINDS = ("open_clip", "dinov2", *TOWERS)
TEXTS = ["a photo of a sks robot in snow", "a red bear"]


@pytest.fixture(scope="module")
def folders(comfyui, tmp_path_factory) -> dict[str, Path]:
    """A folder of each kind: the toybox's own reward, and models of transformers with random weights."""
    from transformers import Dinov2Config, Dinov2Model

    root = tmp_path_factory.mktemp("scorers")
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    Dinov2Model(config).save_pretrained(root / "dinov2")
    settings = {"do_center_crop": True, "crop_size": 56, "size": {"shortest_edge": 64}, "image_mean": [0.5] * 3}
    settings["image_std"] = [0.5] * 3
    (root / "dinov2" / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    towers = {kind: write_towers(root / kind, kind) for kind in TOWERS}
    return {"open_clip": weights_folder("reward"), "dinov2": root / "dinov2", **towers}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def same(resident: ResidentEmbedder, found, expected) -> bool:
    import comfy.model_management as management

    return np.array_equal(found, expected) and management.loaded_models() == [resident._patcher]


@pytest.mark.parametrize("kind", KINDS)
def test_a_resident_gives_the_same_embeddings_and_can_be_offloaded(folders, images, kind: str):
    import comfy.model_management as management

    bare, resident = load_embedder(folders[kind]), ResidentEmbedder(load_embedder(folders[kind]))
    assert (resident.name, resident.fingerprint) == (bare.name, bare.fingerprint)
    assert not management.loaded_models()
    for _ in range(2):  # the second time after it was offloaded
        assert same(resident, resident.embed_images(images), bare.embed_images(images))
        assert resident.device == management.get_torch_device()
        management.unload_all_models()
        assert not management.loaded_models()
    if kind == "dinov2":
        assert resident.embed_texts(TEXTS) is None and bare.embed_texts(TEXTS) is None
    else:
        assert same(resident, resident.embed_texts(TEXTS), bare.embed_texts(TEXTS))
    management.unload_all_models()


@pytest.mark.parametrize("kind", ["open_clip", "dinov2"])
def test_a_resident_gives_the_same_patches(folders, images, kind: str):
    import comfy.model_management as management

    bare, resident = load_embedder(folders[kind]), ResidentEmbedder(load_embedder(folders[kind]))
    expected = bare.embed_patches(images)
    assert expected.ndim == 4 and same(resident, resident.embed_patches(images), expected)
    management.unload_all_models()


def test_the_quality_guard_scores_with_a_resident(folders):
    import comfy.model_management as management

    images = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    bare, resident = load_embedder(folders["clip"]), ResidentEmbedder(load_embedder(folders["clip"]))
    expected, found = (QualityScorer(e, str).score(images, TEXTS) for e in (bare, resident))
    assert np.isfinite(expected).all() and np.array_equal(found, expected)
    management.unload_all_models()
