"""A bank of reference errors: K fixed draws of time and noise per pair, each looked at by the reference once a round."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..errors import UserError
from ..protocols import TextToImage
from ..seeds import generator
from .dataset import to_device

Errors = tuple[torch.Tensor, torch.Tensor]
"""Errors of winners and losers, float32 [b] each."""


class ReferenceBank:
    """Errors of the reference for winners and losers, float32 [n, K] each; NaN at draws that no planned step visits.

    Draw k of a pair is a time and a noise of (seed, pair, k) alone. A pair's visit in epoch e takes draw e mod K.
    """

    def __init__(self, pairs: int, draws: int, seed: int, device: torch.device) -> None:
        self.draws, self.seed = draws, seed
        self.winner, self.loser = (torch.full((pairs, draws), math.nan, device=device) for _ in range(2))
        self.known = torch.zeros(pairs, draws, dtype=torch.bool)

    def draw(
        self, model: TextToImage, picks: torch.Tensor, epochs: torch.Tensor, shape: torch.Size
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Times [b] and noise [b, *shape], on the CPU, of visits (pair, epoch); picks and epochs int64 [b]."""
        times, noise = [], []
        for pair, k in zip(picks.tolist(), (epochs % self.draws).tolist(), strict=True):
            draws = generator(self.seed, 5, pair, k)
            times.append(model.draw_timesteps(1, draws))
            noise.append(torch.randn(shape, generator=draws))
        return torch.cat(times), torch.stack(noise)

    def lookup(self, picks: torch.Tensor, epochs: torch.Tensor) -> Errors:
        """The kept errors of visits, on the device."""
        place = to_device(torch.stack([picks, epochs % self.draws]), self.winner.device)
        return self.winner[place[0], place[1]], self.loser[place[0], place[1]]

    def missing(self, picks: torch.Tensor, epochs: torch.Tensor) -> bool:
        """Whether a visit's errors are not kept yet."""
        return not bool(self.known[picks, epochs % self.draws].all())

    def keep(self, picks: torch.Tensor, epochs: torch.Tensor, errors: Errors) -> None:
        """Keep the errors of visits; those that are kept already stay, so that a resumed round has the unbroken one's
        to the bit.
        """
        for i, (pair, k) in enumerate(zip(picks.tolist(), (epochs % self.draws).tolist(), strict=True)):
            if not self.known[pair, k]:
                self.winner[pair, k], self.loser[pair, k] = errors[0][i], errors[1][i]
                self.known[pair, k] = True

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of the errors; nothing while none is known."""
        return {"winner": self.winner.clone(), "loser": self.loser.clone()} if self.known.any() else {}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take up kept errors; of an empty state, nothing.

        Raises UserError when they are of other pairs or another K.
        """
        for name in state:
            own = getattr(self, name)
            if state[name].shape != own.shape:
                raise UserError(
                    f"the kept reference bank is of {state[name].shape[0]} pairs with {state[name].shape[1]} draws, this training has "
                    f"{own.shape[0]} with {own.shape[1]}. Set reference_bank as it was, or train in another output folder."
                )
            own.copy_(state[name])
        if state:
            self.known = ~(self.winner.isnan() & self.loser.isnan()).cpu()


def forwards_of(pairs: int, draws: int, batch_size: int, planned: int) -> int:
    """How many of a round's `planned` forwards of `batch_size` pairs, from the first, hold every draw that the round
    visits.
    """
    return min(planned, math.ceil(pairs * draws / batch_size))


def fill(
    bank: ReferenceBank,
    forwards: int,
    visits_of: Callable[[int], tuple[torch.Tensor, torch.Tensor]],
    errors_of: Callable[[int], Errors],
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Compute what is missing of forwards 0..forwards-1, in the very batches in which training will first visit the
    draws: the reference is then rounded as the policy is, and at B = 0 both agree to the bit.

    visits_of, errors_of: pairs and epochs of a forward, and the reference's errors of it. tell: called with (done, of)
    after each.
    """
    for number in range(forwards):
        picks, epochs = visits_of(number)
        if bank.missing(picks, epochs):
            bank.keep(picks, epochs, errors_of(number))
        if tell:
            tell(number + 1, forwards)
