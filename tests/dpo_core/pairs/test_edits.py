"""Manual decisions on pairs: parsing, applying, dropping stale ones, and their effect on training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from loops import FakeModel, make_loop

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.pairs.edits import (
    MAX_LENGTH,
    Edits,
    apply_edits,
    candidates_fingerprint,
    pair_id,
    read_edits,
    set_thumbs,
    thumbs_of,
    thumbs_words,
)
from dreambooth_dpo.dpo_core.records import Candidate, Pair
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import AdapterSettings, TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import pair_data
from dreambooth_dpo.dpo_core.training.objectives import PairErrors, kto
from dreambooth_dpo.dpo_core.training.round import train_round

MARK = "0123456789abcdef"
PAIRS = [Pair(0, 1, 1.0, 0.5), Pair(2, 1, 0.25, 1.0), Pair(4, 5, 2.0, 2.0)]


def edits(pairs: dict | None = None, candidates: dict | None = None, fingerprint: str = MARK) -> Edits:
    return Edits(fingerprint=fingerprint, pairs=pairs or {}, candidates=candidates or {})


# --- reading ---


def test_empty_text_gives_no_edits():
    assert read_edits("") == read_edits(" \n") == Edits()
    assert len(read_edits("")) == 0


def test_text_written_by_the_inspector_is_parsed():
    text = json.dumps({"version": 1, "fingerprint": MARK, "pairs": {"0-1": "swap"}, "candidates": {"7": "up"}})
    assert read_edits(text) == edits({"0-1": "swap"}, {"7": "up"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "nonsense"),
        ("[]", "[] is not what the node writes there"),
        ('{"version": 2}', "version"),
        ('{"pairs": {"0-1": "drop"}}', "pairs.0-1"),
        ('{"pairs": {"0-1-2": "keep"}}', "pairs.0-1-2"),
        ('{"pairs": {"a-b": "keep"}}', "pairs.a-b"),
        ('{"pairs": {"٣-٤": "keep"}}', "is not what the node writes there"),
        ('{"pairs": {"3-3": "keep"}}', "with itself"),
        ('{"pairs": {"3-4": "keep", "4-3": "swap"}}', "decided twice"),
        ('{"candidates": {"-1": "up"}}', "candidates.-1"),
        ('{"candidates": {"1": "sideways"}}', "candidates.1"),
        ('{"fingerprint": "../x"}', "fingerprint"),
        ('{"more": 1}', "more"),
        (" " * MAX_LENGTH + "{}x", "more than"),
    ],
)
def test_other_text_is_refused_with_the_reason_and_a_remedy(text: str, said: str):
    with pytest.raises(UserError) as error:
        read_edits(text)
    assert said in str(error.value) and "Empty the text to drop all decisions" in str(error.value)
    assert len(str(error.value)) < 600


# --- applying ---


def test_without_edits_pairs_stay_unchanged():
    done = apply_edits(PAIRS, Edits(), MARK, 6)
    assert done.pairs == PAIRS and (done.changed, done.stale, done.thumbs) == (0, 0, {})


def test_keep_swap_and_reject():
    done = apply_edits(PAIRS, edits({"0-1": "keep", "2-1": "swap", "4-5": "reject"}), MARK, 6)
    assert done.pairs == [PAIRS[0], Pair(1, 2, -0.25, -1.0)]
    assert (done.kept, done.swapped, done.rejected, done.changed, done.stale) == (1, 1, 1, 2, 0)
    assert done.sentence() == "2 pairs go to training: 1 confirmed, 1 swapped; 1 rejected."
    assert done.pairs[1].angle == pytest.approx(PAIRS[1].angle - 180) and done.pairs[1].gap == -PAIRS[1].gap


def test_edits_of_other_candidates_are_dropped_and_counted():
    done = apply_edits(PAIRS, edits({"0-1": "reject"}, {"2": "down"}, fingerprint="f" * 16), MARK, 6)
    assert done.pairs == PAIRS and done.thumbs == {} and done.stale == 2
    assert "2 decisions dropped: made on other candidates." in done.sentence()


def test_edits_of_missing_or_reversed_pairs_are_dropped_and_counted():
    done = apply_edits(PAIRS, edits({"0-1": "reject", "1-2": "swap", "0-5": "keep"}), MARK, 6)
    assert done.pairs == PAIRS[1:] and done.stale == 2 and not done.other
    assert "2 decisions dropped: the pair rule no longer makes those pairs this way round." in done.sentence()


def test_thumbs_beyond_the_candidates_are_dropped():
    done = apply_edits(PAIRS, edits({}, {"10": "up", "2": "down", "5": "up"}), MARK, 6)
    assert done.thumbs == {2: "down", 5: "up"} and done.stale == 1
    assert "Thumbs: 1 up, 1 down, for the objective kto." in done.sentence()


def test_the_fingerprint_depends_on_prompts_seeds_and_pictures():
    drawn = [Candidate(i, 0, "a sks robot", 100 + i, 0, i) for i in range(2)]
    same = candidates_fingerprint(drawn, ["a", "b"])
    assert same == candidates_fingerprint([Candidate(i, 7, "a sks robot", 100 + i, 5, 0) for i in range(2)], ["a", "b"])
    others = [
        candidates_fingerprint(drawn, ["b", "a"]),
        candidates_fingerprint([Candidate(0, 0, "a sks cat", 100, 0, 0), drawn[1]], ["a", "b"]),
        candidates_fingerprint([Candidate(0, 0, "a sks robot", 99, 0, 0), drawn[1]], ["a", "b"]),
        candidates_fingerprint(drawn[:1], ["a"]),
    ]
    assert len({same, *others}) == 5 and len(same) == 16


# --- training on edited pairs ---


@pytest.fixture
def run(tmp_path: Path):
    """A run with scored candidates and pairs of three prompts, four candidates each."""
    loop = make_loop(tmp_path / "run")
    loop.begin(0)
    loop.candidates(0)
    loop.pair(0)
    yield loop.run
    loop.run.close()


def trained(run: RunFolder, pairs_name: str, folder: Path, objective: str = "dpo") -> dict[str, torch.Tensor]:
    """The adapter after six steps on these pairs."""
    model = FakeModel()
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2), seed=1)
    settings = TrainSettings(
        steps=6, batch_size=2, learning_rate=1e-2, warmup_steps=1, winner_error_collapse=10, objective=objective
    )
    with RunFolder(folder) as inner:
        train_round(inner, 0, model, adapter, pair_data(run, "round_0", pairs_name, model, objective), settings, 9)
    return adapter.state()


def same(left: dict, right: dict) -> bool:
    return all(torch.equal(left[k], right[k]) for k in left)


def test_rejecting_wrong_pairs_equals_training_on_the_clean_ones(run: RunFolder, tmp_path: Path):
    clean = run.pairs("round_0")
    there = {frozenset((p.winner, p.loser)) for p in clean}
    free = [
        (a, b)
        for g in range(3)
        for a in range(4 * g, 4 * g + 4)
        for b in range(4 * g, a)
        if frozenset((a, b)) not in there
    ]
    wrong = [Pair(a, b, -1.0, -1.0) for a, b in free]
    assert len(clean) >= 4 and wrong
    planted = [p for i, pair in enumerate(clean) for p in ([wrong[i], pair] if i < len(wrong) else [pair])]
    run.set_pairs("planted", planted)
    assert not same(trained(run, "planted", tmp_path / "planted"), trained(run, "round_0", tmp_path / "clean"))
    done = apply_edits(planted, edits({pair_id(p): "reject" for p in wrong}), MARK, 12)
    run.set_pairs("mended", done.pairs)
    assert done.rejected == len(wrong) and done.pairs == clean
    assert same(trained(run, "mended", tmp_path / "mended"), trained(run, "round_0", tmp_path / "again"))


def test_thumbs_change_kto_training_only(run: RunFolder, tmp_path: Path):
    pairs = run.pairs("round_0")
    run.set_pairs("thumbed", pairs)
    set_thumbs(run, "thumbed", {pairs[0].winner: "down", 11: "up"})
    assert thumbs_of(run, "thumbed") == {pairs[0].winner: "down", 11: "up"} and thumbs_of(run, "round_0") == {}
    assert not same(trained(run, "thumbed", tmp_path / "a", "kto"), trained(run, "round_0", tmp_path / "b", "kto"))
    assert same(trained(run, "thumbed", tmp_path / "c", "dpo"), trained(run, "round_0", tmp_path / "d", "dpo"))


def test_a_candidate_with_a_thumb_counts_once_and_not_in_its_pairs(run: RunFolder):
    """Pairs 0-1 and 1-2; thumbs: candidate 1 down, 3 up. So 0 and 2 count in their pairs, 1 and 3 by their thumbs."""
    run.set_pairs("few", [Pair(0, 1, 1, 1), Pair(1, 2, 1, 1), Pair(3, 1, 1, 1)])
    set_thumbs(run, "few", {1: "down", 3: "up"})
    data, latents = pair_data(run, "round_0", "few", FakeModel(), "kto"), run.latents("round_0")
    assert data.counts.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]]
    assert torch.equal(data.winners, latents[[0, 1, 1, 3]]) and torch.equal(data.losers, latents[[1, 2, 1, 3]])
    assert pair_data(run, "round_0", "few", FakeModel(), "dpo").counts is None


def errors(counts: torch.Tensor | None, winner=(0.1, 0.2), loser=(0.3, 0.1)) -> PairErrors:
    zero = torch.zeros(2)
    return PairErrors(torch.tensor(winner), zero + 0.15, torch.tensor(loser), zero + 0.2, zero, 10.0, counts)


def test_kto_with_a_mask_of_ones_equals_kto_of_pairs():
    assert torch.allclose(kto(errors(torch.ones(2, 2))), kto(errors(None)))
    assert torch.allclose(torch.stack(errors(torch.ones(2, 2)).rises), torch.stack(errors(None).rises), atol=1e-7)
    assert torch.allclose(errors(torch.ones(2, 2)).margin, errors(None).margin)


def test_kto_of_single_samples_by_hand():
    """Row 0: its winner alone, g = 0.05; row 1: its loser alone, g = 0.1; z = 0.075."""
    found = errors(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    expected = torch.tensor(
        [0.5 * torch.sigmoid(torch.tensor(-10 * (0.05 - 0.075))), 0.5 * torch.sigmoid(torch.tensor(10 * (0.1 - 0.075)))]
    )
    assert torch.allclose(kto(found), expected)
    assert found.margin.tolist() == pytest.approx([0.05, -0.1])
    assert [float(r) for r in found.rises] == pytest.approx([-0.05, -0.1])


def test_sentence_on_the_use_of_thumbs():
    assert thumbs_words({}, "dpo") == ""
    assert thumbs_words({1: "up"}, "kto") == "Thumbs on single candidates were used: 1."
    assert "were not used (2): the objective dpo trains on pairs only; kto trains on both" in thumbs_words(
        {1: "up", 2: "down"}, "dpo"
    )
