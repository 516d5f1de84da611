"""Encode prompts: CONDITIONING batches for ComfyUI's samplers, and the denoiser's input tensors for training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ...errors import UserError
from ...protocols import Cond
from . import host

Entry = tuple[torch.Tensor, dict[str, Any]]
"""CONDITIONING of one prompt: the text embedding [1, tokens, width] and its extras (pooled_output, ...)."""


def encode(clip: Any, prompt: str) -> Entry:
    """Encode one prompt.

    Raises UserError when its conditioning cannot be batched (several entries, hooks, schedules).
    """
    entries = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    if len(entries) != 1 or not isinstance(entries[0][0], torch.Tensor) or "hooks" in entries[0][1]:
        raise UserError(
            f"the CLIP gives {len(entries)} conditioning entries for the prompt {prompt!r}, or hooks: scheduled or "
            "combined conditioning cannot be trained on. Use a CLIP without hooks or schedules."
        )
    return entries[0][0], dict(entries[0][1])


def batch(entries: Sequence[Entry]) -> list[list]:
    """Stack n entries into one CONDITIONING with one row per sample: [[float [n, tokens, width], {...}]].

    Embeddings of different lengths are repeated to a common length, which leaves attention over them unchanged.
    Raises UserError when the extras of the entries differ.
    """
    extras: dict[str, Any] = {}
    for key in dict.fromkeys(key for _, extra in entries for key in extra):
        values = [extra.get(key) for _, extra in entries]
        value = values[0]
        if any(isinstance(v, torch.Tensor) for v in values):
            if any(not isinstance(v, torch.Tensor) or v.shape != value.shape for v in values):
                raise UserError(
                    f"prompts of one batch have different {key!r}: set the batch size to 1, "
                    "or use prompts of about equal length."
                )
            extras[key] = torch.cat(values)
        elif all(v == value for v in values):
            extras[key] = value
        else:
            raise UserError(f"prompts of one batch differ in {key!r} ({values[:2]}): set the batch size to 1.")
    return [[torch.cat(_to_one_length([tensor for tensor, _ in entries])), extras]]


def _to_one_length(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Repeat embeddings [1, tokens, width] to the least common multiple of their lengths.

    Raises UserError when that is more than 8 times the longest.
    """
    length = math.lcm(*(t.shape[1] for t in tensors))
    if length > 8 * max(t.shape[1] for t in tensors):
        lengths = sorted({t.shape[1] for t in tensors})
        raise UserError(
            f"prompts of one batch have {lengths} tokens, which cannot be repeated to a common length: set the batch "
            "size to 1, or use prompts of about equal length."
        )
    return [t.repeat(1, length // t.shape[1], 1) for t in tensors]


def denoiser_cond(
    model: Any, entry: Entry, latent_shape: Sequence[int], device: torch.device
) -> dict[str, torch.Tensor]:
    """The denoiser's input tensors [1, ...] for one prompt, as the samplers make them (c_crossattn; SDXL's y; ...).

    Raises UserError for a model that needs more inputs than prompts (inpainting, control).
    """
    tensors = {key: value.cond for key, value in host.model_conds(model, entry, latent_shape, device).items()}
    if others := sorted(k for k, v in tensors.items() if not isinstance(v, torch.Tensor) or k == "c_concat"):
        raise UserError(
            f"{type(model).__name__} takes {', '.join(others)} beside the prompt: such models (inpainting, control, "
            "editing) cannot be trained here. Use the text-to-image model that it was made from."
        )
    return tensors


def stack(conds: Sequence[dict[str, torch.Tensor]]) -> Cond:
    """Stack the conditioning of n prompts into one batch: [1, ...] each -> [n, ...]."""
    stacked = {}
    for key in conds[0]:
        rows = [c[key] for c in conds]
        stacked[key] = torch.cat(_to_one_length(rows) if key == "c_crossattn" else rows)
    return stacked
