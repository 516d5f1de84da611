"""Preference objectives: pure functions from the denoising errors of n pairs to one loss per pair.

The caller takes the mean over pairs afterwards. Errors are means over the latent's elements (see `denoising_error`).
`beta` depends on that reduction: with sums it would be smaller by the number of elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .group_objectives import GROUP_OBJECTIVES, GroupErrors

MAPO_SNR = 0.1
"""Signal-to-noise constant s in MaPO's score of an error (snr_value in the authors' code)."""
MAPO_TIMES = 1000.0
"""Factor T on MaPO's difference of scores: the number of training timesteps."""


def denoising_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error of the raw prediction, mean over the latent's elements, in float32: [n, C, h, w] x2 -> [n]."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def implicit_margin(
    winner: torch.Tensor, winner_reference: torch.Tensor, loser: torch.Tensor, loser_reference: torch.Tensor
) -> torch.Tensor:
    """How much more the policy improved the winner than the loser, relative to the reference: [n], positive is good.

    -[(e_w - e_w_ref) - (e_l - e_l_ref)], the negated bracket of Diffusion-DPO (arXiv 2311.12908, eq. 14).
    """
    return (loser - loser_reference) - (winner - winner_reference)


@dataclass(frozen=True)
class PairErrors:
    """Denoising errors of n pairs under policy and reference, and further inputs of the objectives.

    Tensors are [n] unless stated otherwise.
    """

    winner: torch.Tensor
    winner_reference: torch.Tensor
    loser: torch.Tensor
    loser_reference: torch.Tensor
    gap: torch.Tensor
    """Reward gap: signed improvement from loser to winner (`Pair.gap`), in standard deviations of the round."""
    beta: float | torch.Tensor
    """A scalar."""
    counts: torch.Tensor | None = None
    """Mask for unpaired objectives, [n, 2] (winner, loser): 1 = the sample counts, 0 = it is a filler.

    None: all samples count.
    """
    point: torch.Tensor | None = None
    """KTO's z, a scalar over all samples of the optimizer step.

    None: z is computed from these errors, which are then all samples of the step.
    """

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.winner)

    @property
    def margin(self) -> torch.Tensor:
        """`implicit_margin`, [n]; a sample that does not count contributes 0."""
        if self.counts is None:
            return implicit_margin(self.winner, self.winner_reference, self.loser, self.loser_reference)
        winner, loser = self.counts.unbind(1)
        return loser * (self.loser - self.loser_reference) - winner * (self.winner - self.winner_reference)

    @property
    def rises(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean error above the reference's, of the winners and of the losers that count: two scalars.

        0 when none counts.
        """
        both = torch.stack([self.winner - self.winner_reference, self.loser - self.loser_reference], 1)
        counts = torch.ones_like(both) if self.counts is None else self.counts
        means = (both * counts).sum(0) / counts.sum(0).clamp(min=1)
        return means[0], means[1]

    @property
    def counted(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Number of winners and of losers that count: two scalars."""
        winners, losers = (
            torch.ones(len(self.winner), 2, device=self.winner.device).sum(0)
            if self.counts is None
            else self.counts.sum(0)
        )
        return winners, losers

    @property
    def reward(self) -> torch.Tensor:
        """beta/2 * margin: the difference of the pair's implicit rewards, the argument of Diffusion-DPO's sigmoid."""
        return self.beta / 2 * self.margin


def dpo(errors: PairErrors) -> torch.Tensor:
    """Diffusion-DPO (arXiv 2311.12908, eq. 14): -log sigmoid(beta/2 * margin).

    log 2 when policy and reference agree. beta: 2000-5000 for eps models, about 100 for flow models.
    """
    return -F.logsigmoid(errors.reward)


def ipo(errors: PairErrors) -> torch.Tensor:
    """IPO (arXiv 2310.12036, eq. 17): (beta/2 * margin - 1/2)^2.

    This is the paper's (margin - 1/(2 tau))^2 with tau = beta/2, times tau^2, which keeps the minimum and gives the
    gradient the size of DPO's. The margin is pulled to 1/beta and held there, so beta sets how far a round goes: for
    mean errors that move by 0.002, use beta 500. 1/4 when policy and reference agree.
    """
    return (errors.reward - 0.5).square()


def hinge(errors: PairErrors) -> torch.Tensor:
    """Hinge loss on DPO's implicit reward: max(0, 1 - beta/2 * margin).

    SLiC (arXiv 2305.10425), in the form of RSO (arXiv 2309.06657). A pair whose margin has reached 2/beta has no
    gradient. 1 when policy and reference agree. beta as for `dpo`.
    """
    return F.relu(1 - errors.reward)


def reward_gap(errors: PairErrors) -> torch.Tensor:
    """Regression of the implicit reward difference to the reward gap: (beta/2 * margin - gap)^2.

    RDP of PRDP (arXiv 2402.08714) and CaPO (arXiv 2502.02588). The gap here is in standard deviations of the round
    (PRDP: raw rewards; CaPO: win rates in 0..1). The margin is pulled to 2 gap/beta: 0.002 for gap 2 and beta 2000.
    """
    return (errors.reward - errors.gap).square()


def mapo(errors: PairErrors) -> torch.Tensor:
    """MaPO (arXiv 2406.06424), without a reference: e_w - beta * log sigmoid(T * (score(e_w) - score(e_l))).

    score(e) = s e / (exp(s e) - 1) is 1 at e = 0 and falls by s/2 per unit of error; s = 0.1 and T = 1000 as in the
    authors' code. beta weighs the margin against the winner's error: 0.5 in the authors' code, 0.1 in this project's
    measurements. With a beta of thousands, as for DPO, the winner's error has no weight and nothing limits the drift.
    """
    return errors.winner - errors.beta * F.logsigmoid(MAPO_TIMES * (_score(errors.winner) - _score(errors.loser)))


def _score(error: torch.Tensor) -> torch.Tensor:
    """x / (exp(x) - 1) for x = MAPO_SNR * error: [n] -> [n].

    Below x = 0.1 it is computed by its power series, so that value and derivative are accurate in float32.
    """
    x = MAPO_SNR * error
    large = x.clamp(min=0.1)
    return torch.where(x < 0.1, 1 - x / 2 + x.square() / 12 - x.pow(4) / 720, large / torch.expm1(large))


def kto(errors: PairErrors) -> torch.Tensor:
    """Diffusion-KTO (arXiv 2404.04465), unpaired: the mean of a winner term and a loser term.

    1/2 [1 - sigmoid(beta (g_w - z))] + 1/2 [1 - sigmoid(-beta (g_l - z))]. g = e_ref - e is how much the policy
    improved a sample; winners are desirable, losers undesirable. z is the mean of g over all samples of the optimizer
    step, at least 0, without gradient (`PairErrors.point`, see `kto_improvement`). 1/2 when policy and reference
    agree. beta: 5000 in the paper (eps models); it multiplies g as a whole, while DPO uses beta/2. With `counts`, a
    masked sample contributes neither to the loss nor to z, so every sample has the same weight.
    """
    total, count = kto_improvement(errors)
    point = (total / count.clamp(min=1)).clamp(min=0).detach() if errors.point is None else errors.point
    winner, loser = errors.winner_reference - errors.winner, errors.loser_reference - errors.loser
    halves = torch.sigmoid(-errors.beta * (winner - point)), torch.sigmoid(errors.beta * (loser - point))
    if errors.counts is not None:
        halves = [half * count for half, count in zip(halves, errors.counts.unbind(1), strict=True)]
    return 0.5 * (halves[0] + halves[1])


def kto_improvement(errors: PairErrors) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of g over the samples that count, and their number: two scalars.

    Over several forwards both are added up; z is their ratio, at least 0.
    """
    g = torch.stack([errors.winner_reference - errors.winner, errors.loser_reference - errors.loser], 1)
    counts = torch.ones_like(g) if errors.counts is None else errors.counts
    return (g * counts).sum(), counts.sum()


def gap_weights(gaps: torch.Tensor, power: float) -> torch.Tensor:
    """Weights of pairs by their reward gaps: max(gap, 0)^power over its mean, [n] -> [n] of mean 1.

    Margin-weighted DPO with power 1: a pair that the scorers tell apart clearly counts for more than one that the
    margin barely admits. Gaps 1, 3 and -2 with power 1 give 0.75, 2.25 and 0. All 1 where no gap is above 0. A relative
    that moves the sigmoid by the gap instead: ODPO (arXiv 2402.10571).
    """
    sizes = gaps.float().clamp(min=0) ** power if power else torch.ones_like(gaps)
    return sizes / sizes.mean() if sizes.any() else torch.ones_like(sizes)


def raft(errors: PairErrors) -> torch.Tensor:
    """RAFT (arXiv 2304.06767): supervised loss on the winners, e_w. Losers, reference and beta are not used."""
    return errors.winner


Objective = Callable[[PairErrors], torch.Tensor]
PAIR_OBJECTIVES: dict[str, Objective] = {f.__name__: f for f in (dpo, ipo, hinge, reward_gap, mapo, kto, raft)}
OBJECTIVES: dict[str, Callable[[PairErrors | GroupErrors], torch.Tensor]] = {**PAIR_OBJECTIVES, **GROUP_OBJECTIVES}
"""All objectives: those of pairs, and those of groups (group_objectives.py)."""
REFERENCE_FREE = frozenset({"mapo", "raft"})
"""Objectives whose loss does not use the reference's errors."""
NO_PREFERENCE = {"dpo": math.log(2), "ipo": 0.25, "hinge": 1.0, "kto": 0.5, "dgpo": math.log(2)}
"""Loss when policy and reference agree, for the objectives where it is the same for all pairs."""
