"""Loads models from local files: the parts of open_clip's, and those of transformers with all of their weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from .errors import MetricsError
from .file_kinds import short_reason
from .model_files import (
    CLIP_WEIGHTS,
    DINO_WEIGHTS,
    HUB_PREFIX,
    WEIGHT_SUFFIXES,
    check_architecture,
    check_clip_folder,
    check_fit,
    check_safetensors,
)
from .torch_embedder import LOADING_ERRORS


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


def whole_model(folder: Path, unused: tuple[str, ...]) -> torch.nn.Module:
    """The model of a transformers folder, float32 on the CPU.

    unused: endings of tensors that are not used and may be missing or left over. Raises MetricsError for weights that
    do not load, lack another tensor, or do not fit.
    """
    from transformers import AutoModel

    try:
        model, info = AutoModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    except LOADING_ERRORS as error:
        raise MetricsError(
            f"cannot load {folder}: {short_reason(error)}. Do {DINO_WEIGHTS} and config.json belong together?"
        ) from error
    # transformers initialises missing tensors at random and only warns.
    info["unexpected_keys"] = {k for k in info["unexpected_keys"] if not k.endswith(unused)}
    if missing := sorted(k for k in info["missing_keys"] if not k.endswith(unused)):
        raise MetricsError(
            f"the weights in {folder} lack {len(missing)} of the model's tensors ({missing[0]}, ...). "
            f"Download {DINO_WEIGHTS} and config.json from the same page."
        )
    check_fit(folder, info)
    return model
