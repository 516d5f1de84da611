"""The trainer: draws, steps, guards, and saved states that resume bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import FakeModel, Poisoned, changed, difference
from trainers import forward, make_data, make_trainer, steps_of

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.seeds import generator
from dreambooth_dpo.dpo_core.settings import TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData
from dreambooth_dpo.dpo_core.training.pending import TrainingStopped
from dreambooth_dpo.dpo_core.training.rate import learning_rate
from dreambooth_dpo.dpo_core.training.steps import train_steps, training_seed, winner_alarm
from dreambooth_dpo.dpo_core.training.trainer import Trainer

# --- the learning rate ---


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]), ("linear", [0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])],
)
def test_learning_rates_by_hand(schedule: str, rates: list[float]) -> None:
    """Ten steps, warm-up 2, rate 1; with decay, step k has at most (10 - k) / 10."""
    chosen = TrainSettings(steps=10, warmup_steps=2, learning_rate=1.0, schedule=schedule)
    assert [learning_rate(chosen, k) for k in range(10)] == pytest.approx(rates)


# --- draws ---


@settings(deadline=None, max_examples=25)  # the first call includes lazy imports
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**31 - 1))
def test_picks_run_through_shuffled_epochs(count: int, size: int, seed: int) -> None:
    """The `count` picks from the start of an epoch contain each pair once."""
    model = FakeModel()
    adapter = Adapter(model.denoiser, changed().adapter)
    trainer = Trainer(model, adapter, make_data(count), TrainSettings(batch_size=size), seed)
    picks = torch.cat([trainer.picks(s, 0) for s in range(3 * count)]).tolist()
    for epoch in range(len(picks) // count):
        assert sorted(picks[epoch * count : (epoch + 1) * count]) == list(range(count))


@pytest.mark.parametrize("step", [0, 1, 7])
def test_accumulation_picks_what_a_larger_batch_would(step: int) -> None:
    parts, whole = make_trainer(batch_size=4, accumulation=2), make_trainer(batch_size=8)
    assert torch.cat([parts.picks(step, 0), parts.picks(step, 1)]).tolist() == whole.picks(step, 0).tolist()


def test_a_step_of_two_parts_has_their_mean_metrics_and_gradients() -> None:
    trainer = make_trainer(moved=True, batch_size=2, accumulation=2, max_grad_norm=1e6)
    with trainer.adapter.attached():
        losses, gradients = [], []
        for part in range(2):
            loss, _ = forward(trainer, 3, part)
            gradients.append(torch.autograd.grad(loss, trainer.parameters))
            losses.append(float(loss.detach()))
        record = trainer.step(3)
    assert losses[0] != losses[1]
    assert record["loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)
    for parameter, one, other in zip(trainer.parameters, *gradients, strict=True):
        assert torch.allclose(parameter.grad, (one + other) / 2, rtol=1e-5, atol=1e-7)


def test_a_step_depends_on_seed_and_step_alone() -> None:
    first = steps_of(make_trainer(moved=True), 4)[0]
    torch.manual_seed(99)
    torch.rand(17)
    assert steps_of(make_trainer(moved=True), 4)[0] == first
    assert steps_of(make_trainer(moved=True), 5)[0]["loss"] != first["loss"]
    assert steps_of(make_trainer(moved=True, seed=12), 4)[0]["loss"] != first["loss"]


def test_rounds_have_seeds_of_their_own() -> None:
    assert len({training_seed(s, r) for s in range(3) for r in range(10)}) == 30


def test_both_samples_of_a_pair_get_the_same_time_and_noise() -> None:
    seen = []

    class Watched(FakeModel):
        def noised(self, x0, noise, times):
            seen.append((x0, noise, times))
            return super().noised(x0, noise, times)

    trainer = make_trainer(Watched(), batch_size=3)
    steps_of(trainer, 2)
    (x0, noise, times), picks = seen[0], trainer.picks(2, 0)
    assert len(seen) == 1 and len(x0) == 6
    assert torch.equal(x0, torch.cat([trainer.data.winners[picks], trainer.data.losers[picks]]))
    assert torch.equal(noise[:3], noise[3:]) and torch.equal(times[:3], times[3:])
    assert not torch.equal(noise[0], noise[1])


# --- steps ---


def test_the_first_loss_is_log_2() -> None:
    """At B = 0 policy and reference agree bit for bit: loss log 2, relative errors and margin exactly 0."""
    record = steps_of(make_trainer(), 0)[0]
    assert record["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (record["winner_error"], record["loser_error"], record["margin"]) == (0.0, 0.0, 0.0)
    assert record["grad_norm"] > 0


def test_a_step_equals_the_papers_formula() -> None:
    """-log sigmoid(-(beta/2) [(e_w - e_w_ref) - (e_l - e_l_ref)]).

    Computed with explicit weights, one pair at a time, without hooks.
    """
    trainer = make_trainer(moved=True, batch_size=3)
    record, draws = steps_of(trainer, 6)[0], generator(trainer.seed, 2, 6, 0)
    fresh = make_trainer(moved=True, batch_size=3)  # before the optimizer's step
    times = torch.randint(1, 10, (3,), generator=draws)
    noise = torch.randn(3, 3, 8, 8, generator=draws)

    def weights(state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return [
            layer.weight + torch.einsum("or,rihw->oihw", state[f"{name}.up"].flatten(1), state[f"{name}.down"])
            for name, layer in fresh.adapter.layers.items()
        ]

    def error(latent: torch.Tensor, i: int, pick: int, state: dict[str, torch.Tensor]) -> float:
        share = times[i] / 10
        shifted = (1 - share) * latent + share * noise[i] + trainer.data.cond["shift"][pick] + share
        one, two = weights(state)
        hidden = torch.nn.functional.conv2d(shifted[None], one, fresh.model.denoiser.down_blocks[0].bias, padding=1)
        raw = torch.nn.functional.conv2d(torch.tanh(hidden), two, fresh.model.denoiser.down_blocks[1].bias)[0]
        return float(((raw - noise[i]) ** 2).mean())

    policy, reference, losses = fresh.adapter.state(), fresh.adapter.reference_state(), []
    for i, pick in enumerate(trainer.picks(6, 0).tolist()):
        winner, loser = trainer.data.winners[pick], trainer.data.losers[pick]
        gap = (error(winner, i, pick, policy) - error(winner, i, pick, reference)) - (
            error(loser, i, pick, policy) - error(loser, i, pick, reference)
        )
        losses.append(math.log1p(math.exp(trainer.settings.beta / 2 * gap)))
    # beta/2 = 1000 amplifies the rounding of float32 errors (1e-7) to 1e-4.
    assert record["loss"] == pytest.approx(sum(losses) / 3, rel=1e-3)


def test_training_changes_only_the_policy() -> None:
    trainer = make_trainer()
    base = {k: v.clone() for k, v in trainer.model.denoiser.state_dict().items()}
    reference, policy = trainer.adapter.reference_state(), trainer.adapter.state()
    steps_of(trainer, 0, 1, 2)
    assert difference(trainer.adapter.state(), policy) > 0
    assert difference(trainer.adapter.reference_state(), reference) == 0
    assert difference(trainer.model.denoiser.state_dict(), base) == 0


def test_a_few_steps_lower_the_loss() -> None:
    records = train_steps(make_trainer(steps=30, batch_size=5, learning_rate=3e-3, schedule="constant"))
    assert records[-1]["loss"] < 0.9 * math.log(2) and records[-1]["accuracy"] > 0.5


@pytest.mark.parametrize(
    ("warmup", "expected"), [(4, [0.25, 0.5, 0.75, 1, 1]), (0, [1, 1, 1, 1, 1]), (1, [1, 1, 1, 1, 1])]
)
def test_warm_up_is_linear(warmup: int, expected: list[float]) -> None:
    trainer = make_trainer(warmup_steps=warmup, learning_rate=1e-3, schedule="constant")
    rates = [r["learning_rate"] for r in steps_of(trainer, *range(5))]
    assert rates == pytest.approx([1e-3 * x for x in expected])
    assert trainer.optimizer.param_groups[0]["lr"] == rates[-1]


def test_gradients_are_clipped_and_their_norm_is_logged_before() -> None:
    free, held = make_trainer(moved=True, max_grad_norm=1e6), make_trainer(moved=True, max_grad_norm=0.01)
    norms = {}
    for name, trainer in (("free", free), ("held", held)):
        norms[name] = steps_of(trainer, 0)[0]["grad_norm"]
    lengths = {
        n: float(torch.cat([p.grad.flatten() for p in t.parameters]).norm())
        for n, t in (("free", free), ("held", held))
    }
    assert norms["free"] == norms["held"] == pytest.approx(lengths["free"], rel=1e-5)
    assert lengths["held"] == pytest.approx(0.01, rel=1e-4)
    assert lengths["free"] > 0.1


def test_no_pairs_is_an_error_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r"no pairs to train on.*Widen the angle window"):
        PairData(torch.zeros(0, 3, 8, 8), torch.zeros(0, 3, 8, 8), {})


# --- states ---


def test_a_loaded_state_continues_bit_for_bit() -> None:
    whole = make_trainer(steps=6)
    records = train_steps(whole)
    kept = {}
    broken = make_trainer(steps=6, checkpoint_every=3)

    def save(next_step: int, state: dict, fresh: list[dict]) -> None:
        kept[next_step] = (state, list(fresh))

    train_steps(broken, save=save)
    assert list(kept) == [3, 6] and [len(fresh) for _, fresh in kept.values()] == [3, 3]
    resumed = make_trainer(steps=6)
    resumed.load_state(kept[3][0])
    again = train_steps(resumed, 3, earlier=kept[3][1])
    assert again == records
    assert difference(resumed.state(), whole.state()) == 0
    assert difference(kept[6][0], whole.state()) == 0


def test_the_last_step_is_saved_between_checkpoints_too() -> None:
    saved = []
    train_steps(
        make_trainer(steps=5, checkpoint_every=3), save=lambda step, state, fresh: saved.append((step, len(fresh)))
    )
    assert saved == [(3, 3), (5, 2)]


def test_a_state_holds_policy_reference_and_moments() -> None:
    trainer = make_trainer()
    parts = {k.split(".")[0] for k in trainer.state()}
    steps_of(trainer, 0)
    assert parts == {"policy", "reference"}
    assert {k.split(".")[0] for k in trainer.state()} == {"policy", "reference", "optimizer"}


# --- guards ---


@pytest.mark.parametrize(("at", "last_saved"), [(0, 0), (1, 0), (2, 2), (5, 4)])
def test_nan_stops_with_the_last_saved_adapter(at: int, last_saved: int) -> None:
    trainer = make_trainer(Poisoned(at), steps=8, checkpoint_every=2)
    states = {0: trainer.state()}
    with pytest.raises(TrainingStopped, match=rf"loss is nan .* at step {at}: .*last good adapter is kept") as caught:
        train_steps(trainer, save=lambda step, state, fresh: states.update({step: state}))
    assert max(states) == last_saved
    assert difference(trainer.state(), states[last_saved]) == 0
    assert [r["step"] for r in caught.value.records] == list(range(last_saved, at))
    assert not trainer.model.denoiser.down_blocks[0]._forward_hooks


def test_nan_in_the_data_stops_too() -> None:
    trainer = make_trainer(steps=4)
    trainer.data.winners[1:] = float("inf")  # the self-test uses the first pair
    start = trainer.state()
    with pytest.raises(TrainingStopped, match="at step [01]"):
        train_steps(trainer)
    assert difference(trainer.state(), start) == 0


def test_a_collapsing_winner_error_stops_with_the_last_saved_adapter() -> None:
    """A learning rate of 1 destroys the model at once; the limit applies to the mean over 20 steps."""
    trainer = make_trainer(steps=8, checkpoint_every=2, learning_rate=1.0, warmup_steps=0, winner_error_collapse=0.01)
    states = {0: trainer.state()}
    with pytest.raises(TrainingStopped, match=r"winner's error is .* \(limit 0\.01\).*collapsing") as caught:
        train_steps(trainer, save=lambda step, state, fresh: states.update({step: state}))
    assert difference(trainer.state(), states[max(states)]) == 0
    assert caught.value.records[-1]["winner_alarm"] > 0.01


def test_the_alarm_is_the_mean_of_twenty_steps() -> None:
    """Steps 0..24 with errors 0..24: mean of 5..24 is 14.5; of 0..3 alone 6/20 = 0.3."""
    records = [{"winner_error": float(i)} for i in range(25)]
    assert winner_alarm(records) == pytest.approx(14.5)
    assert winner_alarm(records[:4]) == pytest.approx(0.3)


def test_out_of_memory_is_an_error_with_a_remedy() -> None:
    class Large(FakeModel):
        def predict(self, noised, times, cond):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"training on 2 pairs at once.*accumulation"):
        train_steps(make_trainer(Large()))
