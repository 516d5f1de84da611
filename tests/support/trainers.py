"""Trainers on the tiny model of loops.py, which take milliseconds."""

from __future__ import annotations

import torch
from loops import FakeModel, changed

from dreambooth_dpo.dpo_core.settings import GROUPED
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData, TrainingData
from dreambooth_dpo.dpo_core.training.groups import GroupData
from dreambooth_dpo.dpo_core.training.trainer import Trainer

PAIRS = 5


def make_data(count: int = PAIRS, model: FakeModel | None = None, gaps: torch.Tensor | None = None) -> PairData:
    draws = torch.Generator().manual_seed(3)
    latents = torch.randn(2 * count, 3, 8, 8, generator=draws)
    cond = (model or FakeModel()).encode_prompts([f"prompt {i}" for i in range(count)])
    return PairData(latents[:count], latents[count:], cond, gaps)


def make_groups(width: int = 3, model: FakeModel | None = None) -> GroupData:
    """Five prompts with 2, 3, 4, 5 and 4 candidates, whose advantages are -1 to 1 in even steps."""
    counts = [2, 3, 4, 5, 4]
    draws = torch.Generator().manual_seed(3)
    latents = torch.randn(sum(counts), 3, 8, 8, generator=draws)
    cond = (model or FakeModel()).encode_prompts([f"prompt {i}" for i in range(PAIRS)])
    members = torch.arange(sum(counts)).split(counts)
    return GroupData(latents, torch.cat([torch.linspace(-1, 1, k) for k in counts]), members, cond, width)


def data_for(objective: str, gaps: torch.Tensor | None = None) -> TrainingData:
    return make_groups() if objective in GROUPED else make_data(gaps=gaps)


def make_trainer(
    model: FakeModel | None = None,
    moved: bool = False,
    seed: int = 11,
    gaps: torch.Tensor | None = None,
    **train: object,
) -> Trainer:
    """A trainer on five pairs.

    moved: the policy differs from its reference.
    """
    settings, model = changed(train=train), model or FakeModel()
    adapter = Adapter(model.denoiser, settings.adapter, seed=0)
    if moved:
        draws = torch.Generator().manual_seed(8)
        with torch.no_grad():
            for weight in adapter.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=draws))
    return Trainer(model, adapter, data_for(settings.train.objective, gaps), settings.train, seed)


def steps_of(trainer: Trainer, *steps: int) -> list[dict]:
    with trainer.adapter.attached():
        return [trainer.step(s) for s in steps]


def forward(trainer: Trainer, step: int, part: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and numbers of one forward of a training step; call it inside `adapter.attached()`."""
    batch = trainer._batch(step, part)
    loss, numbers = trainer._policy(batch, trainer.reference(batch))
    return loss, {name: value for name, (value, _) in numbers.items()}
