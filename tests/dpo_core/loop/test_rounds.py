"""Tests the loop: two rounds on a model of a few weights and on a real pipeline of random weights."""

from __future__ import annotations

import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from loops import PROMPTS, FakeModel, Mean, Poisoned, adapters, changed, difference, make_loop, outcome
from models import tiny_text_to_image

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.loop.rounds import Loop
from dreambooth_dpo.dpo_core.pairs.build import NoPairs
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import load_into_adapter, save_lora


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> Loop:
    """Two rounds, run to the end."""
    loop = make_loop(tmp_path_factory.mktemp("fake") / "run")
    assert loop.go() == 2
    return loop


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Loop:
    """The same on a StableDiffusionPipeline of random weights, 64 pixels."""
    loop = make_loop(
        tmp_path_factory.mktemp("real") / "run",
        tiny_text_to_image(),
        changed(train={"learning_rate": 1e-3, "steps": 4}),
    )
    assert loop.go() == 2
    return loop


@pytest.fixture(params=["fake", "real"])
def done(request) -> Loop:
    return request.getfixturevalue(request.param)


def test_records_are_complete(done: Loop) -> None:
    run, steps = done.run, done.settings.train.steps
    for name, count, prompts in (
        ("round_0", 12, PROMPTS.train),
        ("round_1", 12, PROMPTS.train),
        ("evaluation_0", 6, PROMPTS.held_out),
    ):
        assert [c.position for c in run.candidates(name)] == list(range(count))
        assert tuple(dict.fromkeys(c.prompt for c in run.candidates(name))) == prompts
        assert len(run.latents(name)) == count and run.images(name).dtype == np.uint8
        for scorer in done.rewards:
            assert np.isfinite(run.score_array(name, scorer.name)).all()
    for round_index in (0, 1):
        pairs, candidates = run.pairs(f"round_{round_index}"), run.candidates(f"round_{round_index}")
        assert pairs and all(candidates[p.winner].prompt_index == candidates[p.loser].prompt_index for p in pairs)
        assert run.fact(f"yield_round_{round_index}")["kept"] == len(pairs)
        assert [r["step"] for r in run.training(round_index)] == list(range(steps))
    assert (run.fact("rounds"), run.fact("stopped")) == (2, None)
    assert [run.load_state(f"training_{r}") for r in (0, 1)] == [None, None]


def test_every_round_changes_the_adapter(done: Loop) -> None:
    start, first, second = adapters(done.run)
    assert max(float(v.abs().max()) for k, v in start.items() if k.endswith(".up")) == 0
    assert difference(start, first) > 0 and difference(first, second) > 0
    assert difference(done.adapter.state(), second) == 0


@pytest.mark.parametrize("round_index", [0, 1])
def test_each_round_starts_at_its_reference(done: Loop, round_index: int) -> None:
    """The first loss is log 2, in round 1 too; with "adapter off" as the reference it would not be."""
    first = done.run.training(round_index)[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (first["winner_error"], first["loser_error"], first["margin"]) == (0.0, 0.0, 0.0)


def test_the_reference_is_the_adapter_at_the_rounds_start(tmp_path: Path) -> None:
    references = {}

    def watch(stage: str, done: int, *_, **__) -> None:
        if stage.startswith("train"):
            references[stage, done] = loop.adapter.reference_state()

    loop = make_loop(tmp_path / "run", progress=watch)
    loop.go()
    kept = adapters(loop.run)
    for round_index in (0, 1):
        for step in range(1, 7):
            assert difference(references[f"train round_{round_index}", step], kept[round_index]) == 0
    assert difference(kept[0], kept[1]) > 0


def test_candidates_are_fresh_each_round_and_evaluations_paired(done: Loop) -> None:
    run = done.run
    rounds = [{c.seed for c in run.candidates(f"round_{r}")} for r in (0, 1)]
    evaluations = [[(c.prompt, c.seed) for c in run.candidates(f"evaluation_{r}")] for r in (0, 1, 2)]
    assert rounds[0].isdisjoint(rounds[1])
    assert evaluations[0] == evaluations[1] == evaluations[2]
    assert {s for _, s in evaluations[0]}.isdisjoint(rounds[0] | rounds[1])
    assert not torch.equal(run.latents("evaluation_0"), run.latents("evaluation_1"))


def test_candidates_are_drawn_with_the_adapter_of_their_round(done: Loop) -> None:
    """Sample the second round's first batch again, with the adapter after round 1 and with none."""
    run, settings = done.run, done.settings
    batch = run.candidates("round_1")[: settings.sampling.batch_size]
    adapter = Adapter(done.model.denoiser, settings.adapter)
    adapter.load(adapters(run)[1])

    def sample() -> torch.Tensor:
        return done.model.sample([c.prompt for c in batch], [c.seed for c in batch], settings.sampling)

    with adapter.merged():
        assert torch.equal(sample(), run.latents("round_1")[: len(batch)])
    assert not torch.equal(sample(), run.latents("round_1")[: len(batch)])


def test_saved_lora_acts_as_the_live_adapter(done: Loop, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_lora(done.adapter, path, {})
    fresh = Adapter(done.model.denoiser, done.settings.adapter, seed=99)
    load_into_adapter(fresh, path)
    batch = done.run.candidates("evaluation_2")[: done.settings.sampling.batch_size]
    with fresh.merged():
        again = done.model.sample([c.prompt for c in batch], [c.seed for c in batch], done.settings.sampling)
    assert torch.equal(again, done.run.latents("evaluation_2")[: len(batch)])


def test_model_is_left_unchanged(done: Loop) -> None:
    fresh = FakeModel() if isinstance(done.model, FakeModel) else tiny_text_to_image()
    assert difference(done.model.denoiser.state_dict(), fresh.denoiser.state_dict()) == 0
    assert not any(m._forward_hooks for m in done.model.denoiser.modules())


def test_judges_only_measure(fake: Loop) -> None:
    assert fake.run.scores("round_0", "judge_fidelity") == {}
    assert len(fake.run.scores("evaluation_2", "judge_fidelity")) == 6


def test_evaluation_guidance_can_differ_from_sampling(tmp_path: Path) -> None:
    seen = []

    class Watched(FakeModel):
        def sample(self, prompts, seeds, settings, on_step=None):
            seen.append((settings.guidance, prompts[0] in PROMPTS.held_out))
            return super().sample(prompts, seeds, settings)

    make_loop(tmp_path / "run", Watched(), changed(rounds=1, evaluation={"guidance": 7.5})).go()
    assert set(seen) == {(7.5, True), (2.0, False)}


def test_candidates_in_few_steps_leave_held_out_pictures_as_they_are(tmp_path: Path) -> None:
    seen, inside = [], []

    class Watched(FakeModel):
        @contextmanager
        def for_candidates(self):
            inside.append(True)
            yield
            inside.pop()

        def sample(self, prompts, seeds, settings, on_step=None):
            held_out = prompts[0] in PROMPTS.held_out
            seen.append((settings.steps, settings.guidance, bool(inside), held_out))
            return super().sample(prompts, seeds, settings)

    usual = changed().sampling
    few = {"candidate_steps": usual.steps + 1, "candidate_guidance": 1.0}
    make_loop(tmp_path / "run", Watched(), changed(rounds=1, sampling=few)).go()
    assert set(seen) == {(usual.steps + 1, 1.0, True, False), (usual.steps, usual.guidance, False, True)}


def test_evaluations_between_rounds_can_be_turned_off(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "run", settings=changed(evaluation={"every_round": False}))
    loop.go()
    assert [len(loop.run.candidates(f"evaluation_{r}")) for r in (0, 1, 2)] == [6, 0, 6]


# --- what is refused ---


def test_rewards_need_both_axes_and_unique_names(tmp_path: Path) -> None:
    model, settings = FakeModel(), changed()
    adapter = Adapter(model.denoiser, settings.adapter)

    def loop(rewards: list, judges: list) -> Loop:
        return Loop(RunFolder(tmp_path), model, adapter, PROMPTS, rewards, judges, settings)

    with pytest.raises(UserError, match=r"lack \['alignment'\]"):
        loop([Mean("fidelity", 0)], [])
    with pytest.raises(UserError, match="two scorers have the name 'judge'"):
        loop([Mean("fidelity", 0), Mean("alignment", 1)], [Mean("judge", 0), Mean("judge", 1)])


def test_a_scorer_that_may_give_no_score_is_a_further_reward_alone(tmp_path: Path) -> None:
    class Partly(Mean):
        unscored = "too dark"

    model, settings = FakeModel(), changed()
    adapter, both = Adapter(model.denoiser, settings.adapter), [Mean("fidelity", 0), Mean("alignment", 1)]

    def loop(rewards: list, judges: list) -> Loop:
        return Loop(RunFolder(tmp_path), model, adapter, PROMPTS, rewards, judges, settings)

    for rewards, judges in (([Partly("fidelity", 0), both[1]], []), (both, [Partly("judge_fidelity", 0)])):
        with pytest.raises(UserError, match=r"gives some pictures no score \(too dark\).*name it 'fidelity_2'"):
            loop(rewards, judges)
    assert loop([*both, Partly("fidelity_2", 0)], []).axes[0] == ("fidelity", "fidelity_2")


def test_window_without_pairs_is_reported_and_can_be_widened(tmp_path: Path) -> None:
    narrow = changed(pairs={"angle_low": 44.9, "angle_high": 45.0})
    with pytest.raises(
        NoPairs, match=r"no pair fits the window 44\.9\.\.45 degrees: 0 pairs from 18 possible.*\(angle_low"
    ):
        make_loop(tmp_path / "run", settings=narrow).go()
    model = FakeModel()
    loop = make_loop(tmp_path / "run", model)
    loop.candidates(0)
    assert model.batches == []
    assert loop.go() == 2


class AlikeFromRound2(FakeModel):
    """From round 2 on, all candidates look the same, so there are no pairs."""

    def decode(self, latents):
        images = super().decode(latents)
        return np.zeros_like(images) if self.same else images

    same = False


def test_later_round_without_pairs_ends_the_loop_with_the_last_adapter(tmp_path: Path) -> None:
    def make() -> Loop:
        model = AlikeFromRound2()

        def watch(stage: str, *_, **__) -> None:
            model.same = model.same or stage == "train round_0"

        loop = make_loop(tmp_path / "run", model, changed(rounds=3, evaluation={"every_round": False}), watch)
        model.same = loop.run.load_state("adapter_1") is not None
        return loop

    for _ in range(2):  # the second time it is resumed
        loop = make()
        assert loop.go() == 1
        assert (
            loop.run.fact("stopped")["round"] == 1 and "nearly all of one colour" in loop.run.fact("stopped")["reason"]
        )
        assert difference(loop.adapter.state(), loop.run.load_state("adapter_1")[0]) == 0
        assert len(loop.run.candidates("evaluation_1")) == 6 and loop.run.load_state("adapter_2") is None


def test_first_round_of_blank_candidates_is_refused_and_not_stored(tmp_path: Path) -> None:
    model = AlikeFromRound2()
    model.same = True
    loop = make_loop(tmp_path / "run", model, changed(rounds=2, evaluation={"every_round": False}))
    with pytest.raises(UserError, match="have one colour"):
        loop.go()
    assert loop.run.candidates("round_0") == [] and loop.run.load_state("adapter_1") is None


# --- stopped by a guard ---


@pytest.mark.parametrize(("at", "round_index", "records"), [(3, 0, 3), (0, 0, 0), (9, 1, 3)])
def test_nan_ends_the_run_with_the_last_good_adapter(tmp_path: Path, at: int, round_index: int, records: int) -> None:
    """6 steps a round, checkpoints every 2: NaN at step 3 of a round falls back to its step 2."""
    states = {}

    def watch(stage: str, done: int, *_, **__) -> None:
        if stage.startswith("train"):
            states[stage, done] = loop.adapter.state()

    loop = make_loop(tmp_path / "run", Poisoned(at), changed(rounds=4), watch)
    assert loop.go() == round_index + 1
    stopped = loop.run.fact("stopped")
    assert stopped["round"] == round_index and "loss is nan" in stopped["reason"]
    assert loop.run.fact("rounds") == round_index + 1
    assert [r["step"] for r in loop.run.training(round_index)] == list(range(records))
    kept = loop.run.load_state(f"adapter_{round_index + 1}")[0]
    good = states[f"train round_{round_index}", 2] if records else loop.run.load_state(f"adapter_{round_index}")[0]
    assert difference(kept, good) == 0 and difference(loop.adapter.state(), good) == 0
    assert len(loop.run.scores(f"evaluation_{round_index + 1}", "judge_fidelity")) == 6


def test_stopped_run_stays_stopped_when_resumed(tmp_path: Path) -> None:
    settings = changed(rounds=4)
    stopped = make_loop(tmp_path / "run", Poisoned(3), settings)
    stopped.go()
    before = outcome(stopped.run, 1)
    healthy = FakeModel()
    resumed = make_loop(tmp_path / "run", healthy, settings)
    assert resumed.go() == 1
    assert outcome(resumed.run, 1) == before and healthy.batches == []
    assert resumed.run.load_state("adapter_2") is None and resumed.run.candidates("round_1") == []
    assert difference(resumed.adapter.state(), stopped.adapter.state()) == 0


def test_interrupted_stop_stops_again_at_the_same_step(tmp_path: Path) -> None:
    """Killed between writing the fact and the adapter; training resumes from its checkpoint and stops again."""
    settings = changed(rounds=4)
    loop = make_loop(tmp_path / "run", Poisoned(3), settings)
    loop.go()
    kept = loop.run.load_state("adapter_1")[0]

    def interrupt(stage: str, done: int, *_, **__) -> None:
        if (stage, done) == ("train round_0", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path / "again", FakeModel(), settings, interrupt).go()
    RunFolder(tmp_path / "again").set_fact("stopped", {"round": 0, "reason": "as the first time"})
    again = make_loop(tmp_path / "again", Poisoned(1), settings)  # its second step is step 3
    assert again.go() == 1
    assert difference(again.run.load_state("adapter_1")[0], kept) == 0
    assert "at step 3" in again.run.fact("stopped")["reason"]


def test_collapse_ends_the_run_and_is_recorded(tmp_path: Path) -> None:
    settings = changed(rounds=3, train={"learning_rate": 1.0, "warmup_steps": 0, "winner_error_collapse": 0.01})
    loop = make_loop(tmp_path / "run", settings=settings)
    assert loop.go() == 1
    assert "collapsing" in loop.run.fact("stopped")["reason"]
    assert loop.run.training(0)[-1]["winner_alarm"] > 0.01
    assert len(loop.run.candidates("evaluation_1")) == 6
    assert make_loop(tmp_path / "run", settings=settings).go() == 1


def test_prompt_is_encoded_once_for_all_its_pairs(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "run")
    loop.begin(0)
    loop.candidates(0)
    loop.pair(0)
    data, pairs = loop.pair_data(0), loop.run.pairs("round_0")
    prompts = [loop.run.candidates("round_0")[p.winner].prompt for p in pairs]
    assert len(data.cond["shift"]) == len(set(prompts)) < len(pairs)
    expected = loop.model.encode_prompts(prompts)["shift"]
    assert torch.equal(data.conditioning(torch.arange(len(pairs)), torch.device("cpu"))["shift"], expected)


def test_prompts_can_be_split_over_the_rounds(tmp_path: Path) -> None:
    """Three prompts in two parts: round 0 draws for the first and the third, round 1 for the second, round 2 as 0."""
    loop = make_loop(tmp_path / "run", settings=changed(prompt_parts=2))
    loop.go()
    drawn = [list(dict.fromkeys(c.prompt for c in loop.run.candidates(f"round_{r}"))) for r in (0, 1)]
    assert drawn == [[PROMPTS.train[0], PROMPTS.train[2]], [PROMPTS.train[1]]]
    assert loop.prompts_of(2) == loop.prompts_of(0)
    with pytest.raises(UserError, match="prompt_parts is 4, but there are 3 training prompts"):
        make_loop(tmp_path / "other", settings=changed(prompt_parts=4))
