"""Small models with random weights, written to disk in the users' formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreambooth_dpo.toybox.captions import build_tokenizer
from dreambooth_dpo.toybox.train.scorers import MEAN, STD, model_cfg

DINO_SETTINGS = {
    "do_center_crop": True,
    "crop_size": {"height": 56, "width": 56},
    "size": {"shortest_edge": 64},
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def write_clip(folder: Path, kind: str, seed: int = 0) -> Path:
    """An open_clip folder of the toybox's `kind` ("reward" or "judge") with random weights, in half precision."""
    from open_clip.model import CLIP

    torch.manual_seed(seed)
    model = CLIP(**model_cfg(kind))
    folder.mkdir(parents=True)
    config = {"model_cfg": model_cfg(kind), "preprocess_cfg": {"mean": list(MEAN), "std": list(STD)}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    build_tokenizer().save_pretrained(folder)
    return folder


def write_dino(folder: Path) -> Path:
    """A transformers folder with a two-layer DINOv2 of random weights."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(DINO_SETTINGS), encoding="utf-8")
    return folder


@pytest.fixture(scope="session", params=["reward", "judge"])
def clip_folder(request, tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp(request.param) / "clip", request.param)


@pytest.fixture(scope="session")
def reward_folder(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("scorers") / "reward", "reward")


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory) -> Path:
    return write_dino(tmp_path_factory.mktemp("scorers") / "dino")
