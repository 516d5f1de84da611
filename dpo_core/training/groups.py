"""Training data of objectives on all candidates: groups of a prompt's candidates with their rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import UserError
from ..pairs.build import Axis, check_pairs, rewards
from ..pairs.own import own_of
from ..protocols import Cond, TextToImage
from ..run.folder import RunFolder
from ..seeds import derive_seed
from ..settings import GROUPED, PairSettings, TrainSettings
from .dataset import PairData, Sides, TrainingData, gather, joined, pair_data
from .group_objectives import GroupErrors
from .visits import visits


@dataclass(frozen=True)
class GroupData(TrainingData):
    """Candidates of all prompts; a row of a batch is a group of `width` candidates of one prompt.

    Each visit of a prompt takes the next `width` of its candidates, from an endless sequence of shuffled epochs of
    them, so that all are used equally often; a prompt with fewer candidates repeats some. Raises UserError when no
    prompt has two candidates.
    """

    latents: torch.Tensor
    """Of all candidates, [n, C, h, w]."""
    advantages: torch.Tensor
    """Rewards above the prompt's mean in standard deviations of the round, float32 [n]."""
    members: tuple[torch.Tensor, ...]
    """Positions of each prompt's candidates, int64 [k] on the CPU."""
    cond: Cond
    """Conditioning tensors, one row for each text; `rows` maps prompts to rows."""
    width: int
    rows: torch.Tensor | None = None
    """Row of `cond` of each prompt, int64 on the CPU. None: row i belongs to prompt i."""
    prompts: tuple[str, ...] = ()
    """The prompts of the rows of `cond`; () where unknown, which other processes cannot train on."""
    own: int = 0
    """Number of a person's own pairs, each as a prompt of two candidates; they are the last ones."""
    weight: float = 1.0
    """Visits of an own pair for each visit of a prompt; see `visits`."""
    seed: int = 0
    """Which candidates come together is derived from it."""
    latent_fields, label_fields = ("latents",), ("advantages",)

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", torch.arange(len(self.members)))
        if not self.members:
            raise UserError(
                "no prompt has two candidates with all scores, so there are no groups to train on. Set "
                "candidates_per_prompt to 2 or more; 8 is usual."
            )

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.members)

    @property
    def shape(self) -> torch.Size:
        """Shape of one latent, [C, h, w]."""
        return self.latents.shape[1:]

    @property
    def first(self) -> torch.Tensor:
        """A latent of the first prompt, [1, C, h, w]."""
        return self.latents[self.members[0][:1]]

    def of_seed(self, seed: int) -> GroupData:
        """The same candidates, grouped by another seed."""
        return replace(self, seed=seed)

    def chosen(self, picks: torch.Tensor, epochs: torch.Tensor) -> torch.Tensor:
        """Positions of the candidates of the prompts `picks` at their visit number `epochs` (int64 [b]): [b, width].

        A function of (seed, prompt, visit) alone.
        """
        found = []
        for prompt, visit in zip(picks.tolist(), epochs.tolist(), strict=True):
            members, size = self.members[prompt], self.width
            order = visits(derive_seed(self.seed, 78, prompt + 1), len(members), visit * size, size)[0]
            found.append(members[order])
        return torch.stack(found)

    def samples(self, chosen: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Latents of the groups, [width b, C, h, w] on `device`, the first of each group first."""
        return gather(self.latents, chosen.T.flatten(), device)

    def errors(
        self,
        chosen: torch.Tensor,
        own: Sides,
        reference: Sides,
        beta: float | torch.Tensor,
        drift: Sides | None = None,
        point: torch.Tensor | None = None,
    ) -> GroupErrors:
        """The errors of the groups with what the objectives need beside them; point: not used."""
        advantages = gather(self.advantages, chosen.flatten(), own[0].device)
        moved = None if drift is None else torch.stack(drift, 1)
        sides = torch.stack(own, 1), torch.stack(reference, 1)
        return GroupErrors(*sides, advantages.view(chosen.shape), beta, moved)

    def sent(self) -> dict[str, object]:
        """All but the conditioning, which each process encodes itself: on the CPU, by name."""
        known = {name: getattr(self, name) for name in ("members", "width", "rows", "prompts", "own", "weight")}
        return {**known, "latents": self.latents.cpu(), "advantages": self.advantages.cpu()}


def received(sent: Mapping[str, object], cond: Cond) -> TrainingData:
    """The data that `sent` gave, in another process, with the conditioning that it encoded."""
    return (GroupData if "members" in sent else PairData)(cond=cond, **sent)  # type: ignore[arg-type]


def training_data(
    run: RunFolder,
    set_name: str,
    pairs_name: str,
    model: TextToImage,
    train: TrainSettings,
    pairs: PairSettings,
    fidelity: Axis,
    alignment: Axis,
) -> TrainingData:
    """What a round trains on: its pairs (`pair_data`), or its scored candidates in groups for the objectives of groups.

    pairs: settings of the pair rule, by which groups get their rewards. fidelity, alignment: names of the scorers.
    Raises NoPairs where the rule made no pair, since then no candidate is better than another; and UserError as
    `pair_data` does.
    """
    if train.objective not in GROUPED:
        return pair_data(run, set_name, pairs_name, model, train.objective)
    check_pairs(run, pairs_name)
    advantages = rewards(run, set_name, pairs, fidelity, alignment)
    candidates, latents = run.candidates(set_name), run.latents(set_name)
    prompt_of = np.asarray([c.prompt_index for c in candidates])
    members = [np.nonzero((prompt_of == p) & ~np.isnan(advantages))[0] for p in dict.fromkeys(prompt_of.tolist())]
    members = [of for of in members if len(of) > 1]
    texts = [candidates[of[0]].prompt for of in members]
    own, count = own_of(run, pairs_name), 0
    if own:
        mine, first = run.pairs(own.set_name), len(candidates)
        count = len(mine)
        members += [np.asarray([first + p.winner, first + p.loser]) for p in mine]
        texts += [c.prompt for c in run.candidates(own.set_name)[::2]]
        latents = joined(latents, run.latents(own.set_name))
        advantages = np.concatenate([advantages, np.tile([1.0, -1.0], count)])
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    return GroupData(
        latents, torch.from_numpy(np.nan_to_num(advantages)).float(), tuple(map(torch.from_numpy, members)),
        model.encode_prompts(list(row_of)), train.group_size, torch.tensor([row_of[text] for text in texts]),
        tuple(row_of), own=count, weight=own.weight if own else 1.0,
    )  # fmt: skip
