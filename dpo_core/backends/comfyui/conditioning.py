"""Encode prompts: CONDITIONING batches for ComfyUI's samplers, and the denoiser's inputs for training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ...errors import UserError
from . import host

Entry = tuple[torch.Tensor, dict[str, Any]]
"""CONDITIONING of one prompt: the text embedding [1, tokens, width] and its extras (pooled_output, ...)."""
Prompted = dict[str, Any]
"""The denoiser's inputs for one prompt: the host's COND objects by name."""


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


def denoiser_cond(model: Any, entry: Entry, latent_shape: Sequence[int], device: torch.device) -> Prompted:
    """The denoiser's inputs for one prompt, as the samplers make them (c_crossattn; SDXL's y; Z-Image's num_tokens).

    Raises UserError for a model that needs a picture besides the prompt (inpainting, control, editing).
    """
    conds = host.model_conds(model, entry, latent_shape, device)
    if "c_concat" in conds:
        raise UserError(
            f"{type(model).__name__} takes c_concat beside the prompt: such models (inpainting, control, editing) "
            "cannot be trained here. Use the text-to-image model that it was made from."
        )
    return conds


def groups(conds: Sequence[Prompted]) -> list[list[int]]:
    """Indices of the conditioning that may share a forward: equal inputs of equal sizes.

    Prompts of different lengths never share one. Repeating embeddings to a common length leaves only a UNet's
    attention unchanged: other denoisers were off by up to 34 %.
    """
    found: list[list[int]] = []
    for number, cond in enumerate(conds):
        for group in found:
            if _alike(conds[group[0]], cond):
                group.append(number)
                break
        else:
            found.append([number])
    return found


def _alike(one: Prompted, other: Prompted) -> bool:
    return one is other or (
        one.keys() == other.keys()
        and all(one[key].can_concat(other[key]) and one[key].size() == other[key].size() for key in one)
    )


def joined(conds: Sequence[Prompted]) -> dict[str, Any]:
    """The denoiser's inputs of one group: tensors [n, ...], or values that hold for all."""
    return {key: value.concat([other[key] for other in conds[1:]]) for key, value in conds[0].items()}


def runs(prompts: Sequence[str]) -> list[list[int]]:
    """Indices of equal prompts in a row."""
    found: list[list[int]] = []
    for number, prompt in enumerate(prompts):
        if found and prompts[found[-1][-1]] == prompt:
            found[-1].append(number)
        else:
            found.append([number])
    return found
