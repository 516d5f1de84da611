"""Loads the parts of open_clip's models, and the preprocessing of transformers' ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError

from .errors import MetricsError
from .file_kinds import short_reason
from .model_files import (
    CLIP_WEIGHTS,
    HUB_PREFIX,
    WEIGHT_SUFFIXES,
    check_architecture,
    check_clip_folder,
    check_safetensors,
)
from .pictures import Preprocess

# open_clip raises AssertionError or AttributeError when weights belong to another architecture.
LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    SafetensorError,
)


def clip_parts(source: str, architecture: str | None, changes: dict) -> tuple[torch.nn.Module, object, str, object]:
    """Model, tokenizer, short name and fingerprinted settings of the model named by `source` and `architecture`."""
    path = Path(source)
    if source.startswith(HUB_PREFIX):
        remedy = "Check the name and the connection, or give a local folder."
        return (*_open_clip(source, None, changes, remedy), source, source)
    if architecture is not None or path.suffix in WEIGHT_SUFFIXES:
        config = check_architecture(architecture, check_safetensors(path))
        remedy = f"Is {path.name} of architecture {architecture}?"
        return (
            *_open_clip(architecture, source, changes, remedy),
            f"{architecture} {path.name}",
            [architecture, config],
        )
    config = check_clip_folder(path)
    tokenizer_files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(path.glob("tokenizer*"))}
    remedy = f"Do {CLIP_WEIGHTS} and the config belong together?"
    return (*_open_clip(f"local-dir:{path}", None, changes, remedy), path.name, [config, tokenizer_files])


def _open_clip(name: str, pretrained: str | None, preprocess: dict, remedy: str) -> tuple[torch.nn.Module, object]:
    """open_clip's model (float32, on the CPU, all weights loaded) and tokenizer; MetricsError if one does not load."""
    import open_clip

    try:
        model = open_clip.create_model(
            name, pretrained, force_preprocess_cfg=preprocess, require_pretrained=True, weights_only=True
        )
        return model, open_clip.get_tokenizer(name)
    except LOADING_ERRORS as error:
        raise MetricsError(f"cannot load {name}: {short_reason(error)}. {remedy}") from error


def dino_preprocess(settings: dict, config: dict) -> Preprocess:
    """Preprocessing of a DINOv2 folder. The size is the crop's, else the resize's, else the config's."""
    crop = settings.get("crop_size") if settings.get("do_center_crop", True) else None
    size = crop or settings.get("size") or config.get("image_size", 224)
    if isinstance(size, dict):
        size = (size["height"], size["width"]) if "height" in size else (size["shortest_edge"],) * 2
    elif isinstance(size, int):
        size = (size, size)
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if not mean or not std:
        raise MetricsError(
            "preprocessor_config.json has no image_mean and image_std: download the file again from the model's page."
        )
    bilinear = settings.get("resample", 3) == 2  # PIL's numbers: 2 bilinear, 3 bicubic
    return Preprocess(
        (int(size[0]), int(size[1])), tuple(mean), tuple(std), "shortest", "bilinear" if bilinear else "bicubic"
    )
