"""Hashes of a scorer's model: of all that its embeddings depend on, of the weights alone, of the architecture alone."""

from __future__ import annotations

import hashlib
import json

import torch


def fingerprints(model: torch.nn.Module, settings: list[object]) -> tuple[str, str, str]:
    """sha256 of the settings and of every tensor's name, shape and bytes (on the CPU, as loaded).

    Also of the bytes alone, equal for the same weights in another folder, and of names and shapes alone, equal for the
    same architecture.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    weights, architecture = hashlib.sha256(), hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        named = f"|{key} {value.dtype} {tuple(value.shape)}|".encode()
        data = value.detach().contiguous().flatten().view(torch.uint8).numpy()
        digest.update(named)
        architecture.update(named)
        for each in (digest, weights):
            each.update(data)
    return digest.hexdigest(), weights.hexdigest(), architecture.hexdigest()
