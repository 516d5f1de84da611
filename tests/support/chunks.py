"""Fake candidates of one committed batch."""

from __future__ import annotations

import numpy as np
import torch

from dreambooth_dpo.dpo_core.records import Candidate


def chunk(number: int, size: int = 2) -> tuple[list[Candidate], torch.Tensor, np.ndarray]:
    """Candidates of one batch, with different latents and pictures."""
    members = [
        Candidate(number * size + i, number, f"prompt {number} ü", 100 + number * size + i, number, i)
        for i in range(size)
    ]
    latents = torch.stack([torch.full((3, 2, 2), float(m.position)) for m in members])
    images = np.stack([np.full((4, 4, 3), m.position, np.uint8) for m in members])
    return members, latents, images
