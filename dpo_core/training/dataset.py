"""Training data of a round: latents, conditioning and reward gaps of its pairs, and their batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from ..errors import UserError
from ..pairs.build import check_pairs
from ..pairs.edits import UNPAIRED, thumbs_of
from ..pairs.own import own_of
from ..protocols import Cond, TextToImage
from ..run.folder import RunFolder
from .objectives import PairErrors

Sides = tuple[torch.Tensor, ...]
"""Numbers of the pictures of b rows, float32 [b] for each place in a row: of pairs, winners and losers."""
RESIDENT_SHARE = 0.1
"""Largest share (0..1) of a GPU's free memory that the pairs may take to stay there for the whole round."""


class TrainingData:
    """What a step trains on: rows of `width` pictures of one prompt. The parts that pairs and groups share.

    A subclass is a frozen dataclass with the fields below, `shape`, `first`, `of_seed`, `chosen`, `samples`, `errors`,
    `sent` and `__len__`.
    """

    width: int
    """Pictures in a row."""
    cond: Cond
    rows: torch.Tensor
    """Row of `cond` that holds the prompt of each row."""
    own: int
    """Number of rows of a person's own pairs; they are the last ones."""
    weight: float
    """Visits of an own row for each visit of another one; see `visits`."""
    latent_fields: tuple[str, ...]
    """Names of the fields that hold latents."""
    label_fields: tuple[str, ...]
    """Names of the fields that hold one or two numbers for each row or picture."""

    def conditioning(self, picks: torch.Tensor, device: torch.device) -> Cond:
        """Conditioning of the rows `picks` (int64 [b] on the CPU), one row each, on `device`.

        Integers stay on the CPU: a backend's own indices, which a GPU would have to be asked for.
        """
        rows = self.rows[picks]
        return {k: gather(v, rows, device if v.is_floating_point() else v.device) for k, v in self.cond.items()}

    def named(self, *groups: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """Tensors of these fields by name, without those that are None."""
        found = {name: getattr(self, name) for names in groups for name in names}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


@dataclass(frozen=True)
class PairData(TrainingData):
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

    width = 2
    latent_fields, label_fields = ("winners", "losers"), ("gaps", "counts")

    @property
    def shape(self) -> torch.Size:
        """Shape of one latent, [C, h, w]."""
        return self.winners.shape[1:]

    @property
    def first(self) -> torch.Tensor:
        """A latent of the first pair, [1, C, h, w]."""
        return self.winners[:1]

    def of_seed(self, seed: int) -> PairData:
        """The same pairs for every seed of training."""
        return self

    def chosen(self, picks: torch.Tensor, visits: torch.Tensor) -> torch.Tensor:
        """The pairs themselves, int64 [b, 1]. visits: not used."""
        return picks[:, None]

    def samples(self, chosen: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Latents of the pairs, [2b, C, h, w] on `device`, winners first."""
        return torch.cat([gather(side, chosen[:, 0], device) for side in (self.winners, self.losers)])

    def errors(
        self,
        chosen: torch.Tensor,
        own: Sides,
        reference: Sides,
        beta: float | torch.Tensor,
        drift: Sides | None = None,
        point: torch.Tensor | None = None,
    ) -> PairErrors:
        """The errors of the pairs with what the objectives need beside them; drift: not used."""
        device = own[0].device
        gaps = gather(self.gaps, chosen[:, 0], device)
        counts = None if self.counts is None else gather(self.counts, chosen[:, 0], device)
        return PairErrors(own[0], reference[0], own[1], reference[1], gaps, beta, counts, point)

    def sent(self) -> dict[str, object]:
        """All but the conditioning, which each process encodes itself: on the CPU, by name."""
        tensors = {name: getattr(self, name) for name in ("winners", "losers", "gaps", "counts", "rows")}
        known = {"prompts": self.prompts, "own": self.own, "weight": self.weight}
        return {**known, **{n: None if t is None else t.cpu() for n, t in tensors.items()}}


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward, on the model's device: b rows of w pictures (pairs: 2), the b first ones first.

    `picks`, `epochs`: int64 [b] on the CPU; `chosen`: what `TrainingData.chosen` made of them, int64 [b, k] on the CPU.
    `noised`, `target`: [w b, C, h, w]. `times`: [w b].
    """

    picks: torch.Tensor
    epochs: torch.Tensor
    noised: torch.Tensor
    target: torch.Tensor
    times: torch.Tensor
    cond: Cond
    chosen: torch.Tensor

    def pieces(self, rows: int) -> list[Batch]:
        """The batch split into batches of at most `rows` rows."""
        size = len(self.picks)
        if rows >= size:
            return [self]
        return [self.share(first, min(first + rows, size)) for first in range(0, size, rows)]

    def share(self, first: int, last: int) -> Batch:
        """The rows first..last-1 of the batch."""
        cut, size = torch.arange(first, last), len(self.picks)
        pictures = torch.cat([cut + size * place for place in range(len(self.noised) // size)])
        there = pictures.to(self.noised.device)
        cond = {k: v[there if v.device == there.device else pictures] for k, v in self.cond.items()}
        noised, target, times = (t[there] for t in (self.noised, self.target, self.times))
        return Batch(self.picks[cut], self.epochs[cut], noised, target, times, cond, self.chosen[cut])


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


Data = TypeVar("Data", bound=TrainingData)


def resident(data: Data, device: torch.device) -> Data:
    """Move the pictures to the GPU for the whole round if they take at most RESIDENT_SHARE of its free memory.

    Otherwise, and on other devices, the data stays where it is and is moved batch by batch.
    """
    if device.type != "cuda":
        return data
    own = data.named(data.latent_fields, data.label_fields)
    tensors = [*own.values(), *data.cond.values()]
    waiting = sum(t.nbytes for t in tensors if t.device.type != "cuda" and t.is_floating_point())
    if waiting > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return data
    cond = {k: to_device(v, device) if v.is_floating_point() else v for k, v in data.cond.items()}
    return replace(data, cond=cond, **{name: to_device(tensor, device) for name, tensor in own.items()})


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
        latents = joined(latents, run.latents(own.set_name))
    winners, losers = [row[0] for row in rows], [row[1] for row in rows]
    row_of = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    cond, gaps = model.encode_prompts(list(row_of)), torch.tensor([row[4] for row in rows])
    counts = torch.tensor([row[2:4] for row in rows]) if thumbs else None
    rows_of = torch.tensor([row_of[p] for p in prompts])
    weight = own.weight if own else 1.0
    return PairData(
        latents[winners], latents[losers], cond, gaps, counts, rows_of, tuple(row_of), own=count, weight=weight
    )


def joined(latents: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
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
