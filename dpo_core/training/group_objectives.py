"""Objectives on groups of a prompt's candidates: pure functions from errors and advantages to one loss per group.

A group is several candidates of one prompt at one time with one noise. An advantage is a candidate's reward above its
prompt's mean, in standard deviations of the round (`pairs.rewards.candidate_rewards`). Errors are means over the
latent's elements, as in objectives.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

ADVANTAGE_CLIP = 5.0
"""Advantages are clipped to this size: adv_clip_max in the authors' code of all three methods."""
RATIO_CLIP = 1.0
"""awm's ratio of likelihoods is clipped to 1 - this .. 1 + this (clip_range in the authors' code)."""


@dataclass(frozen=True)
class GroupErrors:
    """Denoising errors of b groups of G candidates under policy and reference, float32 [b, G] each."""

    policy: torch.Tensor
    reference: torch.Tensor
    advantage: torch.Tensor
    """Rewards above the prompt's mean, in standard deviations of the round, [b, G]."""
    beta: float | torch.Tensor
    """A scalar."""
    drift: torch.Tensor | None = None
    """Squared distance of the policy's prediction to the reference's, mean over the elements, [b, G].

    None for objectives that do not use it.
    """

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.policy)

    @property
    def rise(self) -> torch.Tensor:
        """Error of the policy above the reference's, [b, G]."""
        return self.policy - self.reference

    @property
    def clipped(self) -> torch.Tensor:
        """Advantages within -5..5, [b, G]."""
        return self.advantage.clamp(-ADVANTAGE_CLIP, ADVANTAGE_CLIP)

    @property
    def margin(self) -> torch.Tensor:
        """-2 sum A rise / sum |A| over each group, [b]; 0 where all advantages are 0.

        With advantages a and -a of two candidates it is the implicit margin of that pair.
        """
        size = self.advantage.abs().sum(1)
        return -2 * (self.advantage * self.rise).sum(1) / torch.where(size > 0, size, 1.0)

    @property
    def counted(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Number of candidates above and below their prompt's mean: two scalars."""
        return (self.advantage > 0).float().sum(), (self.advantage < 0).float().sum()

    @property
    def rises(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean rise of the candidates above and below their prompt's mean: two scalars, 0 where there is none."""
        above, below = (self.advantage > 0).float(), (self.advantage < 0).float()
        return tuple((self.rise * part).sum() / part.sum().clamp(min=1) for part in (above, below))  # type: ignore


def nft(errors: GroupErrors) -> torch.Tensor:
    """DiffusionNFT (arXiv 2509.16117): (r |v+ - v|^2 + (1 - r) |v- - v|^2) / beta, mean over the group.

    v+ = (1 - beta) v_old + beta v_theta, v- = (1 + beta) v_old - beta v_theta; r = 1/2 + clip(A / 5, -1, 1) / 2, with
    group mean and global deviation, as in the authors' code. v_old is the reference of the round. With the drift
    D = |v_theta - v_old|^2 and <v_old - v, v_theta - v_old> = (e - e_ref - D) / 2,

        |v+ - v|^2 = e_ref + beta (e - e_ref) - beta (1 - beta) D
        |v- - v|^2 = e_ref - beta (e - e_ref) + beta (1 + beta) D

    The plain form on the raw prediction, all times alike: not the authors' x0 error divided by its own mean size. Up to
    a constant it is A/5 (e - e_ref) + (beta - A/5) D: `awm` without its clip, whose weight of D depends on A.
    beta: 1 and 0.1 in the authors' configs; higher is closer to the reference. e_ref / beta where both agree.
    """
    beta, change = errors.beta, errors.beta * errors.rise
    good = 0.5 + errors.clipped / ADVANTAGE_CLIP / 2
    positive = errors.reference + change - beta * (1 - beta) * errors.drift
    negative = errors.reference - change + beta * (1 + beta) * errors.drift
    return ((good * positive + (1 - good) * negative) / beta).mean(1)


def awm(errors: GroupErrors) -> torch.Tensor:
    """Advantage weighted matching (arXiv 2509.25050): max(-A q, -A clip(q, 0, 2)) + beta D, mean over the group.

    q = exp(e_ref - e) is the ratio of likelihoods with the negated error as log-likelihood, A the advantage over 5 (the
    authors' advantage_max 1), D = |v_theta - v_ref|^2 the KL term with uniform weight. At q = 1 the gradient is
    A d e + beta d D: supervised matching, weighted by advantage. Errors here move by thousandths, so the clip is rarely
    reached. The authors weigh the distance to an average of recent weights by 1, to the first model by 0.003; the
    reference of a round stands for the former, so beta 1. 0 on average where both agree.
    """
    share, ratio = errors.clipped / ADVANTAGE_CLIP, (-errors.rise).exp()
    near = ratio.clamp(1 - RATIO_CLIP, 1 + RATIO_CLIP)
    return (torch.maximum(-share * ratio, -share * near) + errors.beta * errors.drift).mean(1)


def dgpo(errors: GroupErrors) -> torch.Tensor:
    """Group DPO (DGPO, arXiv 2510.08425): -log sigmoid(-beta/G sum A (e - e_ref)), one sigmoid for a group.

    The advantages are centred in the group, since the unknown partition function cancels only where their sum is 0.
    The gradient is that of the authors' code, sigmoid(S) A d e with S = beta/G sum A (e - e_ref), times beta; its later
    ratio clip and KL term are left out. Two candidates with advantages 1 and -1 give Diffusion-DPO's loss, so beta is
    on dpo's scale. log 2 where policy and reference agree.
    """
    advantage = errors.clipped - errors.clipped.mean(1, keepdim=True)
    return -F.logsigmoid(-errors.beta * (advantage * errors.rise).mean(1))


GroupObjective = Callable[[GroupErrors], torch.Tensor]
GROUP_OBJECTIVES: dict[str, GroupObjective] = {f.__name__: f for f in (nft, awm, dgpo)}
