"""Tests drafts: they choose the candidates drawn in full, which equal those drawn without drafts."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loops import DRAFTED, PROMPTS, FakeModel, Nursery, adapters, changed, difference, make_loop, outcome
from pydantic import ValidationError

from dreambooth_dpo.dpo_core.loop.drafts import Told, drafting, finish_plan, finish_set, in_pairs, told
from dreambooth_dpo.dpo_core.pairs.build import NoPairs
from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.sampling.sets import plan, sample_set
from dreambooth_dpo.dpo_core.settings import SamplingSettings

SETTINGS = SamplingSettings(steps=6, draft_steps=2, guidance=1.0, width=64, height=64, batch_size=4)


AXES = [("fidelity",), ("alignment",)]


def pair(winner: int, loser: int) -> Pair:
    return Pair(winner, loser, 1.0, 1.0)


def with_drafts(folder: Path, pairs: list[Pair]) -> RunFolder:
    """A run with five drafts of each of three prompts, and the given pairs of drafts."""
    run = RunFolder(folder)
    sample_set(run, "drafts_0", FakeModel(), PROMPTS.train, 5, drafting(SETTINGS), 7, 0)
    run.set_pairs("drafts_0", pairs)
    return run


# --- settings ---


def test_draft_settings_differ_in_steps_only() -> None:
    found = drafting(SETTINGS)
    assert (found.steps, found.draft_steps) == (2, 0)
    assert found.model_dump(exclude={"steps", "draft_steps"}) == SETTINGS.model_dump(exclude={"steps", "draft_steps"})


@pytest.mark.parametrize("steps", [6, 7])
def test_as_many_draft_steps_as_steps_are_refused(steps: int) -> None:
    with pytest.raises(
        ValidationError, match=f"draft_steps {steps} must be below steps 6; a third of them is usual, 0 is off"
    ):
        SamplingSettings(steps=6, draft_steps=steps)


def test_settings_without_drafts_are_described_as_before_drafts_existed() -> None:
    assert "draft_steps" not in SamplingSettings().described()
    assert SETTINGS.described()["draft_steps"] == 2


# --- who is drawn in full ---


def test_positions_in_pairs_are_unique_and_sorted(tmp_path: Path) -> None:
    run = with_drafts(tmp_path, [pair(7, 5), pair(7, 9), pair(1, 0)])
    assert in_pairs(run, "drafts_0") == [0, 1, 5, 7, 9]


def test_finish_plan_keeps_prompts_and_seeds_and_renumbers_positions() -> None:
    """Of 3 prompts x 5 drafts those at 1, 6, 9, 14 in batches of 3: prompts 0, 1, 1, 2, one of them in batch two."""
    drafts = plan(PROMPTS.train, 5, 7, 0, 4)
    found = finish_plan(drafts, [1, 6, 9, 14], 3)
    assert [(c.position, c.chunk, c.row) for c in found] == [(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 0)]
    assert [c.prompt_index for c in found] == [0, 1, 1, 2]
    assert [(c.prompt, c.seed) for c in found] == [(drafts[i].prompt, drafts[i].seed) for i in (1, 6, 9, 14)]


def test_finished_images_equal_those_drawn_without_drafts(tmp_path: Path) -> None:
    run = with_drafts(tmp_path, [pair(7, 5), pair(14, 11)])
    finish_set(run, "drafts_0", "drafts_0", "round_0", FakeModel(), SETTINGS)
    sample_set(run, "whole", FakeModel(), PROMPTS.train, 5, SETTINGS, 7, 0)
    assert np.array_equal(run.images("round_0"), run.images("whole", [5, 7, 11, 14]))
    assert np.array_equal(run.latents("round_0"), run.latents("whole")[[5, 7, 11, 14]])
    assert not np.array_equal(run.images("round_0"), run.images("drafts_0", [5, 7, 11, 14])), "drafts are others"


def test_begun_set_keeps_its_choice_under_new_pair_settings(tmp_path: Path) -> None:
    """Pair settings may change before training: the images that exist are used."""
    run = with_drafts(tmp_path, [pair(7, 5)])
    finish_set(run, "drafts_0", "drafts_0", "round_0", FakeModel(), SETTINGS)
    run.set_pairs("drafts_0", [pair(1, 0), pair(2, 3)])
    model = FakeModel()
    finish_set(run, "drafts_0", "drafts_0", "round_0", model, SETTINGS)
    assert model.batches == [] and len(run.candidates("round_0")) == 2


def test_without_pairs_nothing_is_drawn_or_stored(tmp_path: Path) -> None:
    run = with_drafts(tmp_path, [])
    run.set_fact("no_pairs_drafts_0", "no pair is better. Lower the margin.")
    with pytest.raises(NoPairs, match="no pair is better. Lower the margin."):
        finish_set(run, "drafts_0", "drafts_0", "round_0", FakeModel(), SETTINGS)
    assert run.candidates("round_0") == [] and run.fact("finished_round_0") is None
    run.set_pairs("drafts_0", [pair(7, 5)])
    finish_set(run, "drafts_0", "drafts_0", "round_0", FakeModel(), SETTINGS)
    assert len(run.candidates("round_0")) == 2


# --- what drafts tell ---


def test_told_has_the_correlation_within_prompts(tmp_path: Path) -> None:
    """Finished: 0, 1 of prompt 0 and 5, 6 of prompt 1. Deviations from each prompt's mean:

    fidelity of drafts -1 1 -1 1 (of .1 .3 .5 .7), of pictures -1 1 -1 1 (of 2 4 1 3): 1, though the prompts' means go
    opposite ways. alignment of drafts -1 1 -1 1, of pictures -1 1 1 -1: 0.
    """
    run = with_drafts(tmp_path, [pair(1, 0), pair(6, 5)])
    finish_set(run, "drafts_0", "drafts_0", "round_0", FakeModel(), SETTINGS)
    drafts = np.zeros(15)
    drafts[[0, 1, 5, 6]] = 0.1, 0.3, 0.5, 0.7
    for name in ("fidelity", "alignment"):
        run.add_scores("drafts_0", name, "1", range(15), drafts)
    run.add_scores("round_0", "fidelity", "1", range(4), np.asarray([2.0, 4.0, 1.0, 3.0]))
    run.add_scores("round_0", "alignment", "1", range(4), np.asarray([0.0, 1.0, 1.0, 0.0]))
    found = told(run, "round_0", AXES, "worst")
    assert (found.drafted, found.finished) == (15, 4)
    assert found.fidelity == pytest.approx(1.0) and found.alignment == pytest.approx(0.0, abs=1e-9)
    assert found.doubtful and "use more draft steps" in found.sentence()
    assert found.sentence().startswith("4 of 15 candidates are in pairs of drafts and were drawn in full; ")


def test_told_is_none_without_drafts_or_with_other_scorers(tmp_path: Path) -> None:
    run = with_drafts(tmp_path, [pair(1, 0), pair(6, 5)])
    assert told(run, "drafts_0", AXES, "worst") is None
    finish_set(run, "drafts_0", "drafts_0", "round_0", FakeModel(), SETTINGS)
    for name in ("fidelity", "alignment"):
        run.add_scores("drafts_0", f"{name}_2", "1", range(15), np.arange(15))
        run.add_scores("round_0", name, "1", range(4), np.arange(4))
    assert told(run, "round_0", AXES, "worst") is None and run.fact("told_round_0") is None


def test_constant_scores_have_no_correlation() -> None:
    silent = Told(15, 4, None, None)
    assert (
        not silent.doubtful and silent.sentence() == "4 of 15 candidates are in pairs of drafts and were drawn in full."
    )


# --- in the loop ---


def test_loop_drafts_chooses_finishes_and_trains(tmp_path: Path) -> None:
    """18 drafts a round. At most 4 candidates of a prompt are in its 2 pairs, because each is used once."""
    loop = make_loop(tmp_path, settings=DRAFTED)
    assert loop.go() == 2
    for r in (0, 1):
        drafts, finished = loop.run.candidates(f"drafts_{r}"), loop.run.candidates(f"round_{r}")
        assert len(drafts) == 18 and 0 < len(finished) <= 12
        assert {c.seed for c in finished} == {drafts[i].seed for i in in_pairs(loop.run, f"drafts_{r}")}
        assert loop.run.pairs(f"round_{r}")
        kept = loop.run.fact(f"told_round_{r}")
        assert (kept["drafted"], kept["finished"]) == (18, len(finished))
    assert {c.seed for c in loop.run.candidates("drafts_0")}.isdisjoint(c.seed for c in loop.run.candidates("drafts_1"))


def test_evaluation_is_never_drafted(tmp_path: Path) -> None:
    plain = make_loop(tmp_path / "plain", settings=changed(sampling={"steps": 6}))
    drafted = make_loop(tmp_path / "drafted", settings=DRAFTED)
    for loop in (plain, drafted):
        loop.evaluate(0)
    assert np.array_equal(plain.run.images("evaluation_0"), drafted.run.images("evaluation_0"))


@pytest.mark.parametrize(
    "stop_at", ["sample drafts_0", "score drafts_0", "pairs drafts_0", "sample round_0", "score round_0"]
)
def test_interrupted_run_ends_with_the_same_numbers(tmp_path: Path, stop_at: str) -> None:
    whole = make_loop(tmp_path / "whole", settings=DRAFTED)
    whole.go()

    class Interrupted(Exception):
        pass

    def interrupt(stage: str, *_: object, **__: object) -> None:
        if stage == stop_at:
            raise Interrupted

    broken = make_loop(tmp_path / "broken", settings=DRAFTED, progress=interrupt)
    with pytest.raises(Interrupted):
        broken.go()
    broken.run.close()
    resumed = make_loop(tmp_path / "broken", settings=DRAFTED)
    resumed.go()
    for name in ("drafts_0", "round_0", "drafts_1", "round_1"):
        assert resumed.run.candidates(name) == whole.run.candidates(name) and resumed.run.pairs(
            name
        ) == whole.run.pairs(name)
        assert np.array_equal(resumed.run.images(name), whole.run.images(name))
    assert [resumed.run.training(r) for r in (0, 1)] == [whole.run.training(r) for r in (0, 1)]
    for name, tensor in whole.adapter.state().items():
        assert np.array_equal(resumed.adapter.state()[name].numpy(), tensor.numpy()), name


@pytest.fixture(scope="module")
def nursery(tmp_path_factory) -> Iterator[Nursery]:
    found = Nursery(tmp_path_factory.mktemp("nursery"), settings=DRAFTED)
    yield found
    found.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither fork nor SIGKILL")
@pytest.mark.parametrize("stage", ["sample drafts_", "score drafts_", "pairs drafts_", "sample round_", "score round_"])
def test_killed_run_ends_with_the_same_numbers(tmp_path: Path, nursery: Nursery, stage: str) -> None:
    """Killed by SIGKILL at a random progress line of the stage plus a random delay; a second process resumes it."""
    status, lines = nursery.run(tmp_path / "whole")
    assert status == 0
    rng = random.Random(stage)
    at = rng.choice([i for i, line in enumerate(lines) if line.startswith(stage)])
    status, seen = nursery.run(tmp_path / "killed", at, rng.uniform(0.0, 0.04))
    assert status == -signal.SIGKILL and len(seen) < len(lines)
    assert nursery.run(tmp_path / "killed")[0] == 0
    with RunFolder(tmp_path / "whole") as whole, RunFolder(tmp_path / "killed") as killed:
        assert outcome(killed) == outcome(whole)
        for name in ("drafts_0", "drafts_1"):
            assert killed.candidates(name) == whole.candidates(name) and killed.pairs(name) == whole.pairs(name)
        for fact in (f"{kind}_round_{r}" for kind in ("finished", "told") for r in (0, 1)):
            assert killed.fact(fact) == whole.fact(fact) is not None
        assert max(map(difference, adapters(killed), adapters(whole))) <= 1e-6
