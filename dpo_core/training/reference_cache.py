"""Reference cache: the reference's errors for K fixed draws of time and noise per pair, computed once per round.

Of groups a draw has its own candidates, too (`GroupData.chosen`). Here a pair stands for either.

The setting is `reference_bank` (K). TRL calls the same idea precompute_ref.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..crew import Crew
from ..errors import UserError
from ..protocols import TextToImage
from ..seeds import generator
from .dataset import Sides, to_device
from .times import draw_times
from .visits import places_before


class Reference(NamedTuple):
    """The reference's errors for a batch, and its prediction for objectives that need the drift from it."""

    errors: Sides
    prediction: torch.Tensor | None = None


class ReferenceCache:
    """Errors of the reference for winners and losers (of groups: each place), float32 [n, K]; NaN where not computed.

    Draw k of a pair is a time and a noise that depend on (seed, pair, k) alone. In epoch e a pair uses draw e mod K.
    """

    def __init__(
        self,
        pairs: int,
        draws: int,
        seed: int,
        device: torch.device,
        time_sampling: str = "table",
        time_shift: float | None = None,
        width: int = 2,
    ) -> None:
        self.draws, self.seed, self.times = draws, seed, (time_sampling, time_shift)
        names = ("winner", "loser") if width == 2 else [f"candidate_{place}" for place in range(width)]
        self.sides = {name: torch.full((pairs, draws), math.nan, device=device) for name in names}
        self.known = torch.zeros(pairs, draws, dtype=torch.bool)

    def draw(
        self, model: TextToImage, picks: torch.Tensor, epochs: torch.Tensor, shape: torch.Size
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Times [b] and noise [b, *shape], on the CPU, for pairs `picks` in `epochs` (int64 [b] each)."""
        times, noise = [], []
        for pair, k in zip(picks.tolist(), (epochs % self.draws).tolist(), strict=True):
            draws = generator(self.seed, 5, pair, k)
            times.append(draw_times(model, 1, draws, *self.times))
            noise.append(torch.randn(shape, generator=draws))
        return torch.cat(times), torch.stack(noise)

    @property
    def device(self) -> torch.device:
        return next(iter(self.sides.values())).device

    def lookup(self, picks: torch.Tensor, epochs: torch.Tensor) -> Sides:
        """The cached errors of pairs `picks` in `epochs`, on the device: float32 [b] each."""
        place = to_device(torch.stack([picks, epochs % self.draws]), self.device)
        return tuple(side[place[0], place[1]] for side in self.sides.values())

    def missing(self, picks: torch.Tensor, epochs: torch.Tensor) -> bool:
        """Whether the errors of any of these pairs and epochs are not in the cache yet."""
        return not bool(self.known[picks, epochs % self.draws].all())

    def store(self, picks: torch.Tensor, epochs: torch.Tensor, errors: Sides) -> None:
        """Store errors that are not in the cache yet.

        Existing entries are not replaced, so a resumed round uses exactly the values of an uninterrupted one.
        """
        for i, (pair, k) in enumerate(zip(picks.tolist(), (epochs % self.draws).tolist(), strict=True)):
            if not self.known[pair, k]:
                for side, found in zip(self.sides.values(), errors, strict=True):
                    side[pair, k] = found[i]
                self.known[pair, k] = True

    def merge(self, known: torch.Tensor, crew: Crew) -> None:
        """Take over what other processes have computed since `known`, bool [n, K]; each entry is of one of them.

        An entry that several computed (a pair that two visited in one step's epochs) is the mean of theirs.
        """
        fresh = (self.known & ~known).to(self.device)
        count = fresh.float()
        sums = [torch.where(fresh, errors, 0.0) for errors in self.sides.values()]
        crew.sum([*sums, count])
        found = count > 0
        for side, total in zip(self.sides.values(), sums, strict=True):
            side[found] = (total / count)[found]
        self.known |= found.cpu()

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of the errors; empty while none is known."""
        return {name: side.clone() for name, side in self.sides.items()} if self.known.any() else {}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Load errors saved by `state`; an empty state changes nothing.

        Raises UserError when they are for another number of pairs or another K.
        """
        for name in state:
            own = self.sides[name]
            if state[name].shape != own.shape:
                raise UserError(
                    f"the saved reference cache is for {state[name].shape[0]} pairs with {state[name].shape[1]} draws, "
                    f"but this training has {own.shape[0]} pairs with {own.shape[1]} draws. Set reference_bank to its "
                    "earlier value, or train in another output folder."
                )
            own.copy_(state[name])
        if state:
            self.known = ~torch.stack(list(self.sides.values())).isnan().all(0).cpu()


def forwards_to_fill(pairs: int, draws: int, batch_size: int, planned: int, own: int = 0, weight: float = 1.0) -> int:
    """Number of forwards, from the first of a round, that visit every draw that the round will use.

    `planned`: forwards of the whole round, of `batch_size` pairs each. own, weight: as for `visits.visits`; pairs with
    a weight below 1 need more epochs.
    """
    epochs = math.ceil(draws / min(1.0, weight)) if 0 < own < pairs else draws
    places = places_before(epochs, pairs, own, weight) if 0 < own < pairs else pairs * epochs
    return min(planned, math.ceil(places / batch_size))


def fill(
    cache: ReferenceCache,
    forwards: int,
    visits_of: Callable[[int], tuple[torch.Tensor, torch.Tensor]],
    errors_of: Callable[[int], Sides],
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Compute the missing entries of forwards 0..forwards-1.

    The batches are those in which training will first visit the draws, so that reference and policy are rounded alike
    and agree bit for bit at B = 0. visits_of: pairs and epochs of a forward. errors_of: the reference's errors of a
    forward. tell: called with (forwards done, forwards) after each.
    """
    for number in range(forwards):
        picks, epochs = visits_of(number)
        if cache.missing(picks, epochs):
            cache.store(picks, epochs, errors_of(number))
        if tell:
            tell(number + 1, forwards)
