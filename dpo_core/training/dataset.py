"""Training data of a round: latents, conditioning and reward gaps of its pairs, and their batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch

from ..errors import UserError
from ..pairs.build import check_pairs
from ..pairs.edits import UNPAIRED, thumbs_of
from ..pairs.own import own_of
from ..protocols import Cond, TextToImage
from ..run.folder import RunFolder
from ..seeds import generator

RESIDENT_SHARE = 0.1
"""Largest share (0..1) of a GPU's free memory that the pairs may take to stay there for the whole round."""


@dataclass(frozen=True)
class PairData:
    """Latents of winners and losers [n, C, h, w], and the conditioning of their prompts, stored once for each prompt.

    Raises UserError when there are no pairs, or when `gaps` or `counts` have another length.
    """

    winners: torch.Tensor
    losers: torch.Tensor
    cond: Cond
    """Conditioning tensors, one row for each prompt; `rows` maps pairs to rows."""
    gaps: torch.Tensor | None = None
    """Reward gaps, float32 [n], in standard deviations of the round (`Pair.gap`). None: zeros."""
    counts: torch.Tensor | None = None
    """Mask for unpaired objectives, float32 [n, 2] (winner, loser): 1 = the sample counts, 0 = it is a filler.

    None: all samples count.
    """
    rows: torch.Tensor | None = None
    """Row of `cond` that holds the prompt of each pair, int64 [n] on the CPU. None: row i belongs to pair i."""
    prompts: tuple[str, ...] = ()
    """The prompts of the rows of `cond`; () where unknown, which other processes cannot train on."""
    own: int = 0
    """Number of a person's own pairs; they are the last ones."""
    weight: float = 1.0
    """Visits of an own pair for each visit of another one; see `visits`."""

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", torch.arange(len(self.winners)))
        if len(self.winners) == 0:
            raise UserError(
                "there are no pairs to train on. Widen the angle window, lower the margin, or sample more candidates."
            )
        if self.gaps is None:
            object.__setattr__(self, "gaps", torch.zeros(len(self.winners)))
        if len(self.gaps) != len(self.winners):
            raise UserError(f"{len(self.gaps)} reward gaps for {len(self.winners)} pairs: give one for each pair.")
        if self.counts is not None and self.counts.shape != (len(self.winners), 2):
            raise UserError(
                f"counts have shape {list(self.counts.shape)} for {len(self.winners)} pairs: give two for each pair."
            )

    def __len__(self) -> int:
        return len(self.winners)

    def conditioning(self, picks: torch.Tensor, device: torch.device) -> Cond:
        """Conditioning of the pairs `picks` (int64 [b] on the CPU), one row each, on `device`.

        Integers stay on the CPU: a backend's own indices, which a GPU would have to be asked for.
        """
        rows = self.rows[picks]
        return {k: gather(v, rows, device if v.is_floating_point() else v.device) for k, v in self.cond.items()}

    def sent(self) -> dict[str, object]:
        """All but the conditioning, which each process encodes itself: on the CPU, by name."""
        tensors = {name: getattr(self, name) for name in ("winners", "losers", "gaps", "counts", "rows")}
        known = {"prompts": self.prompts, "own": self.own, "weight": self.weight}
        return {**known, **{n: None if t is None else t.cpu() for n, t in tensors.items()}}

    def tensors(self) -> list[torch.Tensor]:
        return [self.winners, self.losers, self.gaps, *self.cond.values()]


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward, on the model's device: 2b samples, the b winners first.

    `picks`, `epochs`: int64 [b] on the CPU. `noised`, `target`: [2b, C, h, w]. `times`: [2b].
    """

    picks: torch.Tensor
    epochs: torch.Tensor
    noised: torch.Tensor
    target: torch.Tensor
    times: torch.Tensor
    cond: Cond

    def pieces(self, pairs: int) -> list[Batch]:
        """The batch split into batches of at most `pairs` pairs."""
        size = len(self.picks)
        if pairs >= size:
            return [self]
        cuts = [torch.arange(first, min(first + pairs, size)) for first in range(0, size, pairs)]
        return [self._of(cut, torch.cat([cut, cut + size])) for cut in cuts]

    def share(self, first: int, last: int) -> Batch:
        """The pairs first..last-1 of the batch."""
        cut = torch.arange(first, last)
        return self._of(cut, torch.cat([cut, cut + len(self.picks)]))

    def _of(self, pairs: torch.Tensor, pictures: torch.Tensor) -> Batch:
        there = pictures.to(self.noised.device)
        cond = {k: v[there if v.device == there.device else pictures] for k, v in self.cond.items()}
        noised, target, times = (t[there] for t in (self.noised, self.target, self.times))
        return Batch(self.picks[pairs], self.epochs[pairs], noised, target, times, cond)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on `device`.

    A copy from the CPU to a GPU goes through pinned memory and does not wait for the GPU, as plain `.to` would.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def gather(tensor: torch.Tensor, picks: torch.Tensor, device: torch.device) -> torch.Tensor:
    """tensor[picks] on `device`; `picks` int64 on the CPU."""
    return to_device(tensor[to_device(picks, tensor.device)], device)


def resident(data: PairData, device: torch.device) -> PairData:
    """Move the pairs to the GPU for the whole round if they take at most RESIDENT_SHARE of its free memory.

    Otherwise, and on other devices, the data stays where it is and is moved batch by batch.
    """
    if device.type != "cuda":
        return data
    waiting = sum(t.nbytes for t in data.tensors() if t.device.type != "cuda" and t.is_floating_point())
    if waiting > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return data
    cond = {k: to_device(v, device) if v.is_floating_point() else v for k, v in data.cond.items()}
    winners, losers, gaps = (to_device(t, device) for t in (data.winners, data.losers, data.gaps))
    return replace(data, winners=winners, losers=losers, cond=cond, gaps=gaps)


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


def pair_data(run: RunFolder, set_name: str, pairs_name: str, model: TextToImage, objective: str = "dpo") -> PairData:
    """Load the stored pairs of a run: latents, conditioning and reward gaps.

    For an unpaired objective the candidates that a person gave a thumb are added. A person's own pairs come last
    (`own_of`); having no scores, they get the mean reward gap of the others. Raises NoPairs when there are none, and
    UserError for own pairs of another size.
    """
    check_pairs(run, pairs_name)
    pairs, candidates, latents = run.pairs(pairs_name), run.candidates(set_name), run.latents(set_name)
    rows = [(p.winner, p.loser, 1.0, 1.0, p.gap) for p in pairs]
    thumbs = thumbs_of(run, pairs_name) if objective in UNPAIRED else {}
    if thumbs:
        rows = _with_thumbs(rows, thumbs)
    prompts = [candidates[row[0]].prompt for row in rows]
    own, count = own_of(run, pairs_name), 0
    if own:
        mine, first = run.pairs(own.set_name), len(candidates)
        count, gap = len(mine), sum(p.gap for p in pairs) / len(pairs)
        rows += [(first + p.winner, first + p.loser, 1.0, 1.0, gap) for p in mine]
        prompts += [c.prompt for c in run.candidates(own.set_name)[::2]]
        latents = _joined(latents, run.latents(own.set_name))
    winners, losers = [row[0] for row in rows], [row[1] for row in rows]
    row_of = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    cond, gaps = model.encode_prompts(list(row_of)), torch.tensor([row[4] for row in rows])
    counts = torch.tensor([row[2:4] for row in rows]) if thumbs else None
    rows_of = torch.tensor([row_of[p] for p in prompts])
    weight = own.weight if own else 1.0
    return PairData(
        latents[winners], latents[losers], cond, gaps, counts, rows_of, tuple(row_of), own=count, weight=weight
    )


def _joined(latents: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Latents of candidates and of own pairs, [n, C, h, w] each. Raises UserError where their shapes differ."""
    if latents.shape[1:] != own.shape[1:]:
        raise UserError(
            f"own pairs have latents of shape {list(own.shape[1:])}, candidates {list(latents.shape[1:])}: they were "
            "encoded for another size or model. Import them again."
        )
    return torch.cat([latents, own])


def _with_thumbs(rows: list[tuple], thumbs: dict[int, str]) -> list[tuple]:
    """Add candidates with a thumb to rows of (winner, loser, winner counts, loser counts, gap).

    Such a candidate counts once, in a row of its own, and no longer in its pairs. The missing partner of that row is
    filled with the same sample and masked out.
    """
    rows = [(w, el, float(w not in thumbs), float(el not in thumbs), gap) for w, el, _, _, gap in rows]
    single = [(p, p, float(way == "up"), float(way == "down"), 0.0) for p, way in sorted(thumbs.items())]
    return [row for row in rows if row[2] or row[3]] + single
