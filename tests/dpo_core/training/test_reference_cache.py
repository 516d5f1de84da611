"""The reference cache: values by hand, agreement with training without it, and resumed runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from loops import FakeModel, Poisoned, changed, difference
from resuming import resumes_bit_for_bit
from trainers import PAIRS, make_trainer, steps_of

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.seeds import generator
from dreambooth_dpo.dpo_core.training.objectives import denoising_error
from dreambooth_dpo.dpo_core.training.pending import TrainingStopped
from dreambooth_dpo.dpo_core.training.reference_cache import Reference, ReferenceCache, forwards_to_fill
from dreambooth_dpo.dpo_core.training.self_test import self_test
from dreambooth_dpo.dpo_core.training.steps import train_steps
from dreambooth_dpo.dpo_core.training.visits import visits


def filled(**settings: object):
    """A trainer whose policy differs from its reference, with a filled reference cache."""
    trainer = make_trainer(moved=True, **settings)
    with trainer.adapter.attached():
        trainer.fill_cache()
    return trainer


def test_training_without_a_cache_gives_the_recorded_numbers() -> None:
    """Metrics of 12 steps, recorded before the cache existed: new draws and a reference forward in each step.

    Rounding depends on the processor: the loss differed by 1.2e-4 between two.
    """
    trainer = make_trainer(steps=12)
    assert trainer.cache is None
    last = train_steps(trainer)[-1]
    assert last["loss"] == pytest.approx(0.04901031032204628, rel=1e-3)
    assert last["winner_error"] == pytest.approx(-0.0024302005767822266, rel=1e-2)


def test_visits_return_the_epoch_of_each_pick() -> None:
    picks, epochs = visits(11, PAIRS, 3, 8)
    assert epochs.tolist() == [0, 0, 1, 1, 1, 1, 1, 2]
    assert picks.tolist() == make_trainer(batch_size=11).picks(0, 0)[3:].tolist()


def test_errors_equal_an_explicit_computation() -> None:
    """With explicit reference weights, one draw of one pair at a time, without hooks."""
    trainer = filled(reference_bank=2, steps=10, batch_size=2)
    state, denoiser = trainer.adapter.reference_state(), trainer.model.denoiser
    one, two = (
        layer.weight + torch.einsum("or,rihw->oihw", state[f"{name}.up"].flatten(1), state[f"{name}.down"])
        for name, layer in trainer.adapter.layers.items()
    )
    for pair in range(PAIRS):
        for k in range(2):
            draws = generator(trainer.seed, 5, pair, k)
            share = torch.randint(1, 10, (1,), generator=draws)[0] / 10
            noise = torch.randn(3, 8, 8, generator=draws)
            for kept, latents in (
                (trainer.cache.sides["winner"], trainer.data.winners),
                (trainer.cache.sides["loser"], trainer.data.losers),
            ):
                x = (1 - share) * latents[pair] + share * noise + trainer.data.cond["shift"][pair] + share
                hidden = torch.nn.functional.conv2d(x[None], one, denoiser.down_blocks[0].bias, padding=1)
                raw = torch.nn.functional.conv2d(torch.tanh(hidden), two, denoiser.down_blocks[1].bias)[0]
                assert float(kept[pair, k]) == pytest.approx(float((raw - noise).square().mean()), rel=1e-5)


def test_errors_equal_those_of_a_reference_forward_on_the_same_draws() -> None:
    """Bit for bit when the batch is the same.

    A step with the cache equals the step with a reference forward on the same draws.
    """
    trainer = filled(reference_bank=3, steps=10, batch_size=2, accumulation=2)
    with trainer.adapter.attached():
        for step, part in ((0, 0), (1, 1), (2, 0)):
            batch = trainer._batch(step, part)
            with torch.no_grad(), trainer.adapter.reference():
                raw = trainer.model.predict(batch.noised, batch.times, batch.cond)
            plain = denoising_error(raw, batch.target).chunk(2)
            found = trainer.reference(batch)
            assert torch.equal(found.errors[0], plain[0]) and torch.equal(found.errors[1], plain[1])
            assert torch.equal(trainer._policy(batch, found)[0], trainer._policy(batch, Reference(plain))[0])


def test_draws_cycle_over_epochs() -> None:
    trainer = make_trainer(reference_bank=2, batch_size=PAIRS)
    noises = []
    for step in range(4):
        batch = trainer._batch(step, 0)
        noises.append({int(p): batch.target[i] for i, p in enumerate(batch.picks)})
    for pair in range(PAIRS):
        assert torch.equal(noises[0][pair], noises[2][pair]) and torch.equal(noises[1][pair], noises[3][pair])
        assert not torch.equal(noises[0][pair], noises[1][pair])


@pytest.mark.parametrize(("steps", "visited"), [(1, 2), (4, 8), (5, 10), (50, 15)])
def test_only_visited_draws_are_computed(steps: int, visited: int) -> None:
    """Five pairs with three draws, two pairs per step: each visit needs a new draw until all 15 are known."""
    trainer = filled(reference_bank=3, steps=steps, batch_size=2)
    # The last forward of a full cache has one extra visit, whose draw is already known.
    assert int(trainer.cache.known.sum()) == visited
    assert torch.equal(trainer.cache.sides["winner"].isnan(), ~trainer.cache.known)
    assert forwards_to_fill(PAIRS, 3, 2, steps) == math.ceil(visited / 2)


def test_the_reference_is_run_once_per_draw() -> None:
    calls = []

    class Counted(FakeModel):
        def predict(self, noised, times, cond):
            calls.append(torch.is_grad_enabled())
            return super().predict(noised, times, cond)

    trainer = make_trainer(Counted(), reference_bank=1, steps=9, batch_size=PAIRS)
    self_test(trainer.model, trainer.adapter, trainer.data, trainer.level)
    calls.clear()
    train_steps(trainer)
    assert calls == [False] + [True] * 9


def test_the_first_loss_is_exactly_log_2() -> None:
    record = steps_of(make_trainer(reference_bank=2), 0)[0]
    assert (record["winner_error"], record["loser_error"], record["margin"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "more", [{}, {"loser_guard": 0.6}, {"objective": "ipo", "beta": 500.0}, {"log_every": 4, "accumulation": 2}]
)
def test_a_loaded_state_continues_bit_for_bit(more: dict) -> None:
    kept: dict[int, tuple] = {}
    whole = make_trainer(steps=8, reference_bank=2, checkpoint_every=3, **more)
    records = train_steps(whole, save=lambda step, state, fresh: kept.update({step: (state, list(fresh))}))
    resumed = make_trainer(steps=8, reference_bank=2, checkpoint_every=3, **more)
    resumed.load_state(kept[3][0])
    assert resumed.cache.known.sum() == whole.cache.known.sum()
    assert train_steps(resumed, 3, earlier=kept[3][1]) == records
    assert difference(resumed.adapter.state(), whole.adapter.state()) == 0


@pytest.mark.parametrize("at", ["reference round_1", "train round_1"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, at: str) -> None:
    settings = changed(train={"reference_bank": 2, "loser_guard": 0.6})
    resumes_bit_for_bit(tmp_path, settings, at, 3)


def test_nan_stops_with_the_last_saved_adapter() -> None:
    trainer, states = make_trainer(Poisoned(3), steps=8, checkpoint_every=2, reference_bank=2), {}
    with pytest.raises(TrainingStopped, match="at step 3") as caught:
        train_steps(trainer, save=lambda step, state, fresh: states.update({step: state}))
    assert (
        max(states) == 2
        and difference(trainer.adapter.state(), {k[7:]: v for k, v in states[2].items() if k[:7] == "policy."}) == 0
    )
    assert [r["step"] for r in caught.value.records] == [2]


def test_a_cache_of_other_pairs_is_refused() -> None:
    bank = ReferenceCache(3, 2, 0, torch.device("cpu"))
    with pytest.raises(UserError, match=r"for 5 pairs with 2 draws.*3 pairs with 2.*Set reference_bank"):
        bank.load({"winner": torch.zeros(5, 2), "loser": torch.zeros(5, 2)})
