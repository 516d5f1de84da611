"""Tells the class of a model from its file's header, without loading it. Used through `host`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any


def class_of_file(path: str | Path) -> tuple[str, dict[str, Any]] | None:
    """(class of comfy.supported_models, the denoiser's configuration) of a safetensors file.

    None for a file that the host does not know, and for other formats.
    """
    import torch
    from comfy import model_detection
    from safetensors import SafetensorError, safe_open

    if Path(path).suffix.lower() not in (".safetensors", ".sft"):
        return None
    try:
        with safe_open(str(path), "pt") as file:
            # Names and shapes are enough for the host; the few checks that read values find none.
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
        tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        prefix = model_detection.unet_prefix_from_state_dict(tensors)
        inside = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        found = model_detection.model_config_from_unet(inside or tensors, "")
    except (OSError, SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        logging.info("DreamBooth DPO: the class of %s could not be read (%s)", path, error)
        return None
    return None if found is None else (type(found).__name__, dict(found.unet_config))
