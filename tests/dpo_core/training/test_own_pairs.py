"""A person's own pairs in training: how often they are visited, and that nothing changes without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loops import FakeModel, adapters, changed, difference, make_loop

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.pairs.own import Own, use_own
from dreambooth_dpo.dpo_core.records import Candidate, Pair
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.seeds import generator
from dreambooth_dpo.dpo_core.training.dataset import pair_data
from dreambooth_dpo.dpo_core.training.reference_cache import forwards_to_fill
from dreambooth_dpo.dpo_core.training.visits import places_before, visits


def plain(seed: int, pairs: int, first: int, count: int) -> tuple[list[int], list[int]]:
    """The sequence of shuffled epochs, each pair once."""
    places = range(first, first + count)
    orders = {p // pairs: torch.randperm(pairs, generator=generator(seed, 1, p // pairs)) for p in places}
    return [int(orders[p // pairs][p % pairs]) for p in places], [p // pairs for p in places]


@pytest.mark.parametrize("own", [0, 2, 7])
def test_weight_1_and_no_own_pairs_give_the_plain_sequence(own: int):
    picks, earlier = visits(11, 7, 5, 40, own, 1.0)
    assert (picks.tolist(), earlier.tolist()) == plain(11, 7, 5, 40)


@pytest.mark.parametrize("weight", [0.25, 0.4, 1.5, 3.0])
def test_own_pairs_are_visited_weight_times_as_often(weight: int):
    """20 epochs of 4 automatic pairs (20 visits each) and 3 own ones: 20 * weight visits each."""
    total = places_before(20, 7, 3, weight)
    assert total == 4 * 20 + int(3 * 20 * weight)
    picks, earlier = visits(3, 7, 0, total, 3, weight)
    counts = torch.bincount(picks, minlength=7).tolist()
    assert counts[:4] == [20] * 4 and all(abs(c - 20 * weight) < 1 for c in counts[4:])
    for pair in range(7):  # each visit of a pair has its own number, so that each uses its own draw
        assert earlier[picks == pair].sort().values.tolist() == list(range(counts[pair]))


def test_a_part_of_the_sequence_equals_that_part_of_the_whole():
    whole = torch.stack(visits(5, 6, 0, 60, 2, 2.5))
    parts = [torch.stack(visits(5, 6, first, 7, 2, 2.5)) for first in range(0, 56, 7)]
    assert torch.equal(torch.cat(parts, dim=1), whole[:, :56])


@pytest.mark.parametrize("weight", [0.3, 1.0, 2.5])
def test_the_reference_cache_plans_all_draws_of_own_pairs(weight: float):
    forwards = forwards_to_fill(6, 3, 4, 10_000, 2, weight)
    picks, earlier = visits(5, 6, 0, 4 * forwards, 2, weight)
    draws = {(p, e % 3) for p, e in zip(picks.tolist(), earlier.tolist(), strict=True)}
    assert draws == {(p, k) for p in range(6) for k in range(3)}


def own_set(run: RunFolder, side: int = 8) -> None:
    """Two own pairs with latents of 3..6."""
    members = [Candidate(i, i // 2, f"own {i // 2}", 0, 0, i) for i in range(4)]
    latents = torch.arange(3.0, 7.0).view(4, 1, 1, 1).expand(4, 3, side, side)
    run.add_chunk("own", members, latents.clone(), FakeModel().decode(latents))
    run.set_pairs("own", [Pair(0, 1, 0.0, 0.0), Pair(2, 3, 0.0, 0.0)])


def test_own_pairs_come_last_with_their_prompts_and_the_mean_gap(tmp_path: Path):
    loop = make_loop(tmp_path)
    loop.begin(0)
    loop.candidates(0)
    loop.pair(0)
    before = pair_data(loop.run, "round_0", "round_0", loop.model)
    own_set(loop.run)
    use_own(loop.run, "round_0", Own("own", 2.0))
    data = pair_data(loop.run, "round_0", "round_0", loop.model)
    count = len(before)
    assert (len(data), data.own, data.weight, before.own) == (count + 2, 2, 2.0, 0)
    assert torch.equal(data.winners[:count], before.winners) and torch.equal(data.gaps[:count], before.gaps)
    assert data.winners[count:, 0, 0, 0].tolist() == [3, 5] and data.losers[count:, 0, 0, 0].tolist() == [4, 6]
    assert [data.prompts[row] for row in data.rows[count:]] == ["own 0", "own 1"]
    assert data.gaps[count:].tolist() == pytest.approx([float(before.gaps.mean())] * 2)
    use_own(loop.run, "round_0", None)
    assert len(pair_data(loop.run, "round_0", "round_0", loop.model)) == count


def test_own_pairs_of_another_size_are_refused(tmp_path: Path):
    loop = make_loop(tmp_path)
    loop.begin(0)
    loop.candidates(0)
    loop.pair(0)
    own_set(loop.run, side=4)
    use_own(loop.run, "round_0", Own("own", 1.0))
    with pytest.raises(UserError, match="encoded for another size"):
        loop.pair_data(0)


@pytest.mark.parametrize("bank", [0, 2])
def test_training_depends_on_the_weight_alone(tmp_path: Path, bank: int):
    settings = changed(rounds=1, train={"reference_bank": bank, "steps": 8})
    made = []
    for name, weight in (("a", 2.5), ("b", 2.5), ("c", 1.0)):
        loop = make_loop(tmp_path / name, settings=settings)
        loop.begin(0)
        loop.candidates(0)
        loop.pair(0)
        own_set(loop.run)
        use_own(loop.run, "round_0", Own("own", weight))
        loop.train(0)
        made.append(adapters(loop.run, 1)[1])
    assert difference(made[0], made[1]) == 0 and difference(made[0], made[2]) > 0
