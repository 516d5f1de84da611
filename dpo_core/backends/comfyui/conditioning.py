"""Prompts to conditioning: batches for ComfyUI's samplers, and the denoiser's own tensors for training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ...errors import UserError
from ...protocols import Cond
from . import host

Entry = tuple[torch.Tensor, dict[str, Any]]
"""One prompt's CONDITIONING: the text embedding [1, tokens, width] and what goes with it (pooled_output, ...)."""


def encode(clip: Any, prompt: str) -> Entry:
    """Raises UserError for a text encoder whose conditioning cannot be batched (several entries, schedules)."""
    found = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    if len(found) != 1 or not isinstance(found[0][0], torch.Tensor) or "hooks" in found[0][1]:
        raise UserError(
            f"the CLIP gives {len(found)} conditioning entries for the prompt {prompt!r}, or hooks with it: scheduled or combined "
            "conditioning cannot be trained on. Use a CLIP without hooks or schedules."
        )
    return found[0][0], dict(found[0][1])


def batch(entries: Sequence[Entry]) -> list[list]:
    """CONDITIONING whose tensors hold a row for every sample of a batch: n entries -> [[float [n, tokens, width],
    {...}]].

    Embeddings of different lengths are repeated to a common one, which leaves attention over them unchanged.
    Raises UserError where entries carry different things.
    """
    extras: dict[str, Any] = {}
    for key in dict.fromkeys(key for _, extra in entries for key in extra):
        values = [extra.get(key) for _, extra in entries]
        value = values[0]
        if any(isinstance(v, torch.Tensor) for v in values):
            if any(not isinstance(v, torch.Tensor) or v.shape != value.shape for v in values):
                raise UserError(
                    f"prompts of one batch have unlike {key!r}: set the batch size to 1, or use prompts of about equal length."
                )
            extras[key] = torch.cat(values)
        elif all(v == value for v in values):
            extras[key] = value
        else:
            raise UserError(f"prompts of one batch differ in {key!r} ({values[:2]}): set the batch size to 1.")
    return [[torch.cat(_to_one_length([tensor for tensor, _ in entries])), extras]]


def _to_one_length(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    length = math.lcm(*(t.shape[1] for t in tensors))
    if length > 8 * max(t.shape[1] for t in tensors):
        lengths = sorted({t.shape[1] for t in tensors})
        raise UserError(
            f"prompts of one batch have {lengths} tokens, which do not go together: use prompts of about equal length."
        )
    return [t.repeat(1, length // t.shape[1], 1) for t in tensors]


def denoiser_cond(
    model: Any, entry: Entry, latent_shape: Sequence[int], device: torch.device
) -> dict[str, torch.Tensor]:
    """The tensors [1, ...] that the denoiser takes for one prompt, as the samplers make them (c_crossattn; y of SDXL;
    ...).

    Raises UserError for a model that wants more than prompts (inpainting, control).
    """
    tensors = {key: value.cond for key, value in host.model_conds(model, entry, latent_shape, device).items()}
    if strange := sorted(k for k, v in tensors.items() if not isinstance(v, torch.Tensor) or k == "c_concat"):
        raise UserError(
            f"{type(model).__name__} takes {', '.join(strange)} beside the prompt: such models (inpainting, control, editing) "
            "cannot be trained here. Use the text-to-image model that it was made from."
        )
    return tensors


def stack(conds: Sequence[dict[str, torch.Tensor]]) -> Cond:
    """Rows of several prompts in one batch: [1, ...] each -> [n, ...]."""
    stacked = {}
    for key in conds[0]:
        rows = [c[key] for c in conds]
        stacked[key] = torch.cat(_to_one_length(rows) if key == "c_crossattn" else rows)
    return stacked
