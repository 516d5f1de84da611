"""Preference objectives: pure functions of per-sample denoising errors."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def denoising_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error of the raw prediction, mean over the latent's elements, in float32: [n, C, h, w] x2 -> [n]."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def implicit_margin(
    winner: torch.Tensor, winner_reference: torch.Tensor, loser: torch.Tensor, loser_reference: torch.Tensor
) -> torch.Tensor:
    """How much more the policy improved the winner than the loser against the reference: [n], positive is good.

    -[(e_w - e_w_ref) - (e_l - e_l_ref)], the bracket of Diffusion-DPO (arXiv 2311.12908, eq. 14) with its sign turned.
    """
    return (loser - loser_reference) - (winner - winner_reference)


def dpo(
    winner: torch.Tensor, winner_reference: torch.Tensor, loser: torch.Tensor, loser_reference: torch.Tensor, beta: float
) -> torch.Tensor:
    """Diffusion-DPO (arXiv 2311.12908, eq. 14): -log sigmoid(beta/2 * margin), per pair, before any mean: [n].

    The errors are means over the latent's elements (see `denoising_error`), and beta depends on that reduction: with sums it would be
    smaller by the number of elements. log 2 when policy and reference agree.
    """
    return -F.logsigmoid(beta / 2 * implicit_margin(winner, winner_reference, loser, loser_reference))


OBJECTIVES = {"dpo": dpo}
