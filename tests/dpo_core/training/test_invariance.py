"""Invariance: splitting a step's pairs into forwards differently does not change the training, for any objective.

Splits come from the memory level (fast, low) and from accumulation.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from loops import FakeModel
from trainers import PAIRS, data_for

from dreambooth_dpo.dpo_core.settings import AdapterSettings, TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.objectives import OBJECTIVES
from dreambooth_dpo.dpo_core.training.steps import train_steps
from dreambooth_dpo.dpo_core.training.trainer import Trainer

BETA = {"dpo": 2000.0, "ipo": 500.0, "hinge": 1000.0, "reward_gap": 2000.0, "mapo": 0.1, "kto": 2000.0, "raft": 1.0}
BETA |= {"nft": 1.0, "awm": 1.0, "dgpo": 2000.0}
WEIGHTS = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
"""`counts` of five rows: two whole pairs, one sample with a thumb up, two with a thumb down."""


class DrawnByPair(Trainer):
    """A trainer whose times and noise depend on the pair's place in the sequence, not on the forward.

    In the normal trainer they depend on the forward, so another accumulation is another training.
    """

    def _batch(self, step, part):
        first = (step * self.settings.accumulation + part) * self.settings.batch_size
        one_by_one = [self._one(place) for place in self.order(range(first, first + self.settings.batch_size))]
        width = self.data.width
        parts = [
            [*(t.chunk(width) for t in (b.noised, b.target, b.times)), {k: v.chunk(width) for k, v in b.cond.items()}]
            for b in one_by_one
        ]
        sides = range(width)
        noised, target, times = (torch.cat([p[i][side] for side in sides for p in parts]) for i in range(3))
        cond = {k: torch.cat([p[3][k][side] for side in sides for p in parts]) for k in parts[0][3]}
        rows = (torch.cat([getattr(b, name) for b in one_by_one]) for name in ("picks", "epochs", "chosen"))
        picks, epochs, chosen = rows
        return type(one_by_one[0])(picks, epochs, noised, target, times, cond, chosen)

    def order(self, places):
        return places

    def _one(self, place):
        alone = Trainer(
            self.model,
            self.adapter,
            self.data,
            self.settings.model_copy(update={"batch_size": 1, "accumulation": 1}),
            self.seed,
        )
        return alone._batch(place, 0)


class Reversed(DrawnByPair):
    def order(self, places):
        return reversed(places)


def trained(kind: type[Trainer] = Trainer, **settings: object) -> tuple[list[dict], torch.Tensor]:
    """Records and final weights of six steps of five pairs, split according to the settings."""
    objective = settings["objective"]
    counts = WEIGHTS if settings.pop("weighted", False) else None
    model = FakeModel()
    data = data_for(objective, torch.linspace(1, 3, PAIRS))
    if counts is not None:
        data = replace(data, counts=counts)
    given = {"steps": 6, "warmup_steps": 0, "learning_rate": 1e-3, "beta": BETA[objective], **settings}
    trainer = kind(
        model, Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2.0), seed=0), data, TrainSettings(**given), 11
    )
    records = train_steps(trainer)
    return records, torch.cat([p.detach().flatten() for p in trainer.parameters])


def assert_same(one: tuple, other: tuple) -> None:
    """Records equal up to rounding; weights within 2e-3 of their norm.

    AdamW turns a rounding error of a tiny gradient into a whole step.
    """
    for a, b in zip(one[0], other[0], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=2e-3, abs=2e-6), (name, a["step"])
    assert float((one[1] - other[1]).norm() / one[1].norm()) < 2e-3


CASES = [(name, {}) for name in OBJECTIVES] + [
    ("kto", {"weighted": True}),
    ("dpo", {"loser_guard": 0.6}),
    ("kto", {"loser_guard": 0.6}),
    ("nft", {"loser_guard": 0.6}),
    ("dgpo", {"loser_guard": 0.6}),
    ("dpo", {"margin_weight": 1.0}),
]


@pytest.mark.parametrize(("objective", "more"), CASES, ids=str)
def test_level_low_gives_the_training_of_fast(objective: str, more: dict) -> None:
    cut = {"objective": objective, "batch_size": 5, **more}
    assert_same(trained(memory="fast", **cut), trained(memory="low", **cut))


@pytest.mark.parametrize(("objective", "more"), CASES, ids=str)
def test_one_forward_of_five_pairs_equals_five_forwards_of_one(objective: str, more: dict) -> None:
    whole = trained(DrawnByPair, objective=objective, batch_size=5, accumulation=1, memory="fast", **more)
    parts = trained(DrawnByPair, objective=objective, batch_size=1, accumulation=5, memory="fast", **more)
    assert_same(whole, parts)


@pytest.mark.parametrize(("objective", "more"), CASES, ids=str)
def test_the_order_within_a_batch_does_not_matter(objective: str, more: dict) -> None:
    one, other = (
        trained(kind, objective=objective, batch_size=5, memory="fast", **more) for kind in (DrawnByPair, Reversed)
    )
    assert_same(one, other)


def test_this_comparison_can_fail() -> None:
    """Another batch size without accumulation is another training, far beyond the tolerance."""
    one, other = (trained(objective="dpo", batch_size=size, memory="fast") for size in (5, 4))
    with pytest.raises(AssertionError):
        assert_same(one, other)
