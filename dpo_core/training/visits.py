"""The order in which training visits its rows: an endless sequence of shuffled epochs, a function of seed and place."""

from __future__ import annotations

from fractions import Fraction

import torch

from ..seeds import generator


def places_before(epoch: int, pairs: int, own: int = 0, weight: float = 1.0) -> int:
    """Places of the sequence of `visits` before an epoch: (pairs - own) e + floor(own e weight)."""
    share = _share(weight)
    return (pairs - own) * epoch + own * epoch * share.numerator // share.denominator


def _share(weight: float) -> Fraction:
    return Fraction(weight).limit_denominator(1000)


def _epoch_of(place: int, pairs: int, own: int, weight: float) -> int:
    """The epoch that a place is in."""
    epoch = int(place / (pairs - own + own * _share(weight)))
    while places_before(epoch + 1, pairs, own, weight) <= place:
        epoch += 1
    while places_before(epoch, pairs, own, weight) > place:
        epoch -= 1
    return epoch


def _slots(epoch: int, pairs: int, own: int, weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of one epoch in their order, and the number of earlier visits of each, int64 [k].

    Own pair j has floor((e + 1) w + j / m) - floor(e w + j / m) visits in epoch e, of m own pairs with weight w, so
    that visits are spread evenly. All of them together are floor(m w (e + 1)) - floor(m w e) (Hermite's identity).
    """
    share, others, index = _share(weight), pairs - own, torch.arange(own)
    before, after = (
        (e * share.numerator * own + index * share.denominator) // (share.denominator * max(1, own))
        for e in (epoch, epoch + 1)
    )
    times = after - before
    picks = torch.cat([torch.arange(others), others + index.repeat_interleave(times)])
    nth = torch.arange(int(times.sum())) - (times.cumsum(0) - times).repeat_interleave(times)
    earlier = torch.cat([torch.full((others,), epoch), before.repeat_interleave(times) + nth])
    return picks, earlier


def visits(
    seed: int, pairs: int, first: int, count: int, own: int = 0, weight: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs at the places first..first+count-1 of an endless sequence of shuffled epochs, and their earlier visits.

    Every epoch holds each of the `pairs` pairs once, so that the number of earlier visits is the epoch; but the last
    `own` of them `weight` times on average (rounded to thousandths). Both results are int64 [count] on the CPU and
    depend on (seed, pairs, own, weight, place) alone.
    """
    own, weight = (own, weight) if own < pairs else (0, 1.0)  # without other pairs there is nothing to weigh against
    found, place = [], first
    while place < first + count:
        epoch = _epoch_of(place, pairs, own, weight)
        picks, earlier = _slots(epoch, pairs, own, weight)
        order = torch.randperm(len(picks), generator=generator(seed, 1, epoch))
        begin = place - places_before(epoch, pairs, own, weight)
        taken = order[begin : begin + first + count - place]
        found.append(torch.stack([picks[taken], earlier[taken]]))
        place += len(taken)
    both = torch.cat(found, dim=1)
    return both[0], both[1]
