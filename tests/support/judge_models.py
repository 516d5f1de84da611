"""Tiny random image-text and vision-language models in transformers' folders; equal seeds give equal weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dreambooth_dpo.toybox.captions import VOCABULARY, build_tokenizer

SIDE = 32
"""Side of the towers' pictures. Unit: pixels."""
PIXELS = {
    "size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.3],
}


def towers(kind: str, seed: int = 0) -> torch.nn.Module:
    """A CLIPModel, SiglipModel or Siglip2Model (`kind` as model_type) of two layers, with random scale and bias."""
    import transformers as hf

    text = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": len(VOCABULARY), "max_position_embeddings": 24,
        "bos_token_id": VOCABULARY.index("<bos>"), "eos_token_id": VOCABULARY.index("<eos>"), "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8,
    }  # fmt: skip
    vision |= {"num_patches": 16} if kind == "siglip2" else {"image_size": SIDE}
    config_class, model_class = {
        "clip": (hf.CLIPConfig, hf.CLIPModel),
        "siglip": (hf.SiglipConfig, hf.SiglipModel),
        "siglip2": (hf.Siglip2Config, hf.Siglip2Model),
    }[kind]
    more = {"projection_dim": 16} if kind == "clip" else {}
    if kind != "clip":
        text["projection_size"] = 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config_class(text_config=text, vision_config=vision, **more))
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def write_towers(folder: Path, kind: str, seed: int = 0) -> Path:
    """The model of `towers` with tokenizer and preprocessor_config.json, as on a model's page."""
    towers(kind, seed).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    settings: dict[str, Any] = dict(PIXELS)
    if kind == "clip":
        settings |= {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
        settings |= {"do_center_crop": True, "image_processor_type": "CLIPImageProcessor"}
    elif kind == "siglip":
        settings |= {"image_processor_type": "SiglipImageProcessor"}
    else:
        settings |= {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 16}
        del settings["size"]
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
