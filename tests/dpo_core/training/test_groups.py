"""Groups of candidates: what a visit takes, training on them, and a run that resumes to the same numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from loops import FakeModel, changed, make_loop
from pydantic import ValidationError
from resuming import resumes_bit_for_bit
from trainers import make_groups, make_trainer, steps_of

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.pairs.build import rewards
from dreambooth_dpo.dpo_core.pairs.own import Own, use_own
from dreambooth_dpo.dpo_core.records import Candidate, Pair
from dreambooth_dpo.dpo_core.settings import TrainSettings
from dreambooth_dpo.dpo_core.training.groups import GroupData, received
from dreambooth_dpo.dpo_core.training.memory.predict import predict_step
from dreambooth_dpo.dpo_core.training.objectives import denoising_error
from dreambooth_dpo.dpo_core.training.steps import train_steps


def test_visits_use_all_candidates_of_a_prompt_equally_often() -> None:
    """Five candidates in groups of three: five visits take each three times, and no group holds one twice but where
    two epochs meet.
    """
    data = make_groups(3).of_seed(4)
    chosen = data.chosen(torch.full((5,), 3), torch.arange(5))
    assert Counter(chosen.flatten().tolist()) == dict.fromkeys(data.members[3].tolist(), 3)
    assert len(set(chosen[0].tolist())) == 3


def test_a_group_depends_on_seed_prompt_and_visit_alone() -> None:
    data = make_groups(3)
    picks, epochs = torch.tensor([4, 0, 2]), torch.tensor([7, 1, 0])
    whole = data.of_seed(4).chosen(picks, epochs)
    assert torch.equal(whole[2:], data.of_seed(4).chosen(picks[2:], epochs[2:]))
    assert not torch.equal(whole, data.of_seed(5).chosen(picks, epochs))
    for row, pick in zip(whole, picks, strict=True):
        assert set(row.tolist()) <= set(data.members[pick].tolist())


def test_pictures_of_a_group_share_time_and_noise() -> None:
    trainer = make_trainer(objective="nft", batch_size=2)
    batch = trainer._batch(1, 0)
    chosen = trainer.data.chosen(batch.picks, batch.epochs)
    samples = trainer.data.samples(chosen, torch.device("cpu"))
    assert torch.equal(samples[2], trainer.data.latents[chosen[0, 1]])
    assert len(batch.noised) == 6 and all(torch.equal(batch.target[i], batch.target[i + 2]) for i in range(4))
    assert [len(piece.noised) for piece in batch.pieces(1)] == [3, 3]
    assert torch.equal(batch.share(1, 2).noised, batch.noised[[1, 3, 5]])


def test_errors_have_the_advantages_of_the_groups_candidates_and_the_drift() -> None:
    trainer = make_trainer(objective="awm", batch_size=2, moved=True)
    with trainer.adapter.attached():
        batch = trainer._batch(0, 0)
        reference = trainer.reference(batch)
        errors, prediction = trainer.errors(batch, reference)
        with torch.no_grad(), trainer.adapter.reference():
            old = trainer.model.predict(batch.noised, batch.times, batch.cond)
    chosen = trainer.data.chosen(batch.picks, batch.epochs)
    assert torch.equal(errors.advantage, trainer.data.advantages[chosen])
    assert torch.equal(errors.drift.T.flatten(), denoising_error(prediction, old)) and (errors.drift > 0).all()
    assert torch.equal(errors.reference.T.flatten(), denoising_error(old, batch.target))


def test_a_reference_cache_gives_what_a_reference_forward_gives() -> None:
    """Its draws are used in turn, with the same candidates: two draws of five prompts are ten groups."""
    trainer = make_trainer(objective="dgpo", beta=100.0, reference_bank=2, batch_size=5, steps=4)
    with trainer.adapter.attached():
        trainer.fill_cache()
        batch, later = trainer._batch(0, 0), trainer._batch(2, 0)
        assert list(trainer.cache.sides) == ["candidate_0", "candidate_1", "candidate_2"]
        assert int(trainer.cache.known.sum()) == 10
        for part in (batch, later):
            found, plain = trainer.reference(part).errors, trainer._reference_of(part).errors
            assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(found, plain, strict=True))
    order = [batch.picks.tolist().index(p) for p in later.picks.tolist()]
    assert torch.equal(later.noised[:5], batch.noised[:5][order])


def test_data_sent_to_another_process_trains_alike() -> None:
    data = make_groups()
    there = received(data.sent(), data.cond)
    assert isinstance(there, GroupData) and torch.equal(there.latents, data.latents)
    picks, epochs = torch.tensor([3]), torch.tensor([2])
    assert torch.equal(there.of_seed(9).chosen(picks, epochs), data.of_seed(9).chosen(picks, epochs))


def test_groups_of_a_run(tmp_path: Path) -> None:
    """All scored candidates of each prompt, with the pair rule's rewards; a candidate without score is left out."""
    loop = make_loop(tmp_path / "run", settings=changed(train={"objective": "nft", "beta": 1.0}))
    loop.begin(0)
    loop.candidates(0)
    loop.pair(0)
    data = loop.pair_data(0)
    assert [m.tolist() for m in data.members] == [list(range(first, first + 4)) for first in (0, 4, 8)]
    expected = rewards(loop.run, "round_0", loop.settings.pairs, "fidelity", "alignment")
    assert data.advantages.tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert [float(data.advantages[m].mean()) for m in data.members] == pytest.approx([0] * 3, abs=1e-6)
    values = loop.run.score_array("round_0", "fidelity")
    values[5] = np.nan
    loop.run.add_scores("round_0", "fidelity", "2", range(12), values)
    assert loop.pair_data(0).members[1].tolist() == [4, 6, 7]


def test_own_pairs_are_groups_of_two(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "run", settings=changed(train={"objective": "nft", "beta": 1.0}))
    loop.begin(0)
    loop.candidates(0)
    loop.pair(0)
    latents = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 8, 8).contiguous()
    members = [Candidate(i, 0, "a sks robot at sea", 0, 0, i) for i in range(2)]
    loop.run.add_chunk("own_x", members, latents, np.zeros((2, 8, 8, 3), np.uint8))
    loop.run.set_pairs("own_x", [Pair(0, 1, 0.0, 0.0)])
    use_own(loop.run, "round_0", Own("own_x", 2.0))
    data = loop.pair_data(0)
    assert (data.own, data.weight, data.prompts[-1]) == (1, 2.0, "a sks robot at sea")
    assert data.members[3].tolist() == [12, 13] and data.advantages[12:].tolist() == [1.0, -1.0]
    assert data.latents[12:, 0, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize(("objective", "bank", "guard"), [("nft", 0, None), ("awm", 0, 0.6), ("dgpo", 2, 0.6)])
def test_a_run_on_groups_resumes_bit_for_bit(tmp_path: Path, objective: str, bank: int, guard: float | None) -> None:
    train = {"objective": objective, "beta": 100.0 if bank else 1.0, "group_size": 3, "reference_bank": bank}
    train["loser_guard"] = guard
    settings = changed(train=train)
    resumes_bit_for_bit(tmp_path, settings)


def test_a_margin_weight_weighs_the_pairs_losses() -> None:
    """At B = 0 every pair's loss is log 2: the batch's loss is log 2 times the mean weight of its pairs."""
    gaps = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    trainer = make_trainer(margin_weight=1.0, batch_size=3, gaps=gaps)
    expected = np.log(2) * float((gaps / 3)[trainer.picks(2, 0)].mean())
    assert steps_of(trainer, 2)[0]["loss"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UserError, match=r"margin_weight needs the reward gaps.*have none"):
        make_trainer(margin_weight=1.0)


def test_settings_that_do_not_go_with_an_objective_are_refused() -> None:
    wrong = [
        ({"objective": "nft", "margin_weight": 1.0}, "margin_weight 1 does not go with objective nft"),
        ({"objective": "kto", "margin_weight": 1.0}, "margin_weight 1 does not go with objective kto"),
        ({"objective": "awm", "reference_bank": 4}, "reference_bank 4 does not go with objective awm"),
    ]
    for given, said in wrong:
        with pytest.raises(ValidationError, match=said):
            TrainSettings(**given)


def test_settings_of_older_rounds_are_described_as_before() -> None:
    assert {"group_size", "margin_weight"}.isdisjoint(TrainSettings().described())
    assert TrainSettings(objective="nft").described()["group_size"] == 4
    assert TrainSettings(margin_weight=1.0).described()["margin_weight"] == 1.0


@pytest.mark.parametrize("objective", ["nft", "dgpo"])
def test_memory_of_a_step_on_groups_can_be_predicted(objective: str) -> None:
    """More than weights and adapter, and more for larger groups' steps."""
    peaks = [predict_step(make_trainer(objective=objective, batch_size=size), "fast").peak for size in (1, 4)]
    assert 0 < peaks[0] < peaks[1]


def test_no_group_is_refused() -> None:
    with pytest.raises(UserError, match="no prompt has two candidates"):
        GroupData(torch.zeros(1, 3, 8, 8), torch.zeros(1), (), FakeModel().encode_prompts(["a"]), 2)


def test_every_objective_of_groups_prefers_the_good_candidates() -> None:
    """After some steps, errors of candidates above their prompt's mean have fallen against those below."""
    for objective in ("nft", "awm"):
        records = train_steps(make_trainer(objective=objective, beta=0.1, steps=30, batch_size=5, learning_rate=3e-3))
        assert records[0]["margin"] == 0 < records[-1]["margin"]
