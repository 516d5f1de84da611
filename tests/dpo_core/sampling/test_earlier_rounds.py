"""Candidates of rounds before that join a round's fresh ones: plan, storage, loop, resume, and what is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from loops import PROMPTS, FakeModel, Nursery, adapters, changed, difference, make_loop, outcome

from dreambooth_dpo.dpo_core.loop.estimate import Counted, count, gigabytes, pictures_words
from dreambooth_dpo.dpo_core.loop.time_left import plan_parts
from dreambooth_dpo.dpo_core.prompts import PromptSet
from dreambooth_dpo.dpo_core.records import Candidate
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.sampling.pool import Photos, of_rounds_before
from dreambooth_dpo.dpo_core.sampling.sets import plan, sample_set
from dreambooth_dpo.dpo_core.settings import SamplingSettings

EACH, TRAIN = 4, len(PROMPTS.train)
AGAIN = changed(rounds=3, sampling={"earlier_rounds": 1})


def sources(run: RunFolder, number: int) -> list[tuple[str, int] | None]:
    return [c.earlier for c in run.candidates(f"round_{number}")]


def test_the_plan() -> None:
    """Two prompts with 2 fresh candidates and a photo: old ones of "b" follow those of "b", in batches after all."""
    old = [Candidate(5, 9, "b", 77, 2, 1, 0.5, earlier=("round_0", 5)), Candidate(6, 9, "c", 78, 2, 2)]
    photos = Photos("b", np.zeros((1, 8, 8, 3), np.uint8))
    planned = plan(("a", "b"), 2, 7, 1, 3, photos=photos, earlier=old)
    assert [(c.position, c.prompt_index, c.prompt) for c in planned] == [
        (0, 0, "a"), (1, 0, "a"), (2, 1, "b"), (3, 1, "b"), (4, 1, "b"), (5, 1, "b"),
    ]  # fmt: skip
    assert [(c.chunk, c.row) for c in planned] == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (3, 0)]
    assert planned[5] == Candidate(5, 1, "b", 77, 3, 0, 0.5, None, ("round_0", 5))
    assert [c.sampled for c in planned] == [True] * 4 + [False] * 2
    assert planned[:4] == plan(("a", "b"), 2, 7, 1, 3), "they shift no seed"


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_loop_takes_over_what_rounds_before_drew(tmp_path: Path, rounds: int) -> None:
    """Unchanged, and none twice: only those that a round drew itself; the latest round first."""
    loop = make_loop(tmp_path, settings=changed(rounds=3, sampling={"earlier_rounds": rounds}))
    assert loop.go() == 3
    run = loop.run
    assert sources(run, 0) == [None] * EACH * TRAIN
    fresh = {0: list(range(EACH * TRAIN))}
    for number in (1, 2):
        found = run.candidates(f"round_{number}")
        before = [n for n in (number - 1, number - 2) if n >= 0][:rounds]
        fresh[number] = [c.position for c in found if c.sampled]
        for index, prompt in enumerate(PROMPTS.train):
            of = [c for c in found if c.prompt == prompt]
            assert [c.prompt_index for c in of] == [index] * (EACH * (1 + len(before)))
            wanted = [(f"round_{n}", fresh[n][EACH * index + i]) for n in before for i in range(EACH)]
            assert [c.earlier for c in of] == [None] * EACH + wanted
        for c in (c for c in found if c.earlier):
            name, place = c.earlier
            assert torch.equal(run.latents(f"round_{number}")[c.position], run.latents(name)[place])
            assert np.array_equal(run.images(f"round_{number}")[c.position], run.images(name)[place])
            assert c.seed == run.candidates(name)[place].seed
    pairs = run.pairs("round_2")
    assert any(run.candidates("round_2")[p.winner].earlier for p in pairs), "none is trained on"


def test_fresh_candidates_are_those_of_a_run_without(tmp_path: Path) -> None:
    """The second round's model differs by what the first learned alone, so its fresh pictures are the same."""
    plain = make_loop(tmp_path / "plain", settings=changed(rounds=2)).run.path
    with_them = make_loop(tmp_path / "again", settings=changed(rounds=2, sampling={"earlier_rounds": 1})).run.path
    for folder, given in ((plain, {}), (with_them, {"earlier_rounds": 1})):
        make_loop(folder, settings=changed(rounds=2, sampling=given)).go()
    with RunFolder(plain) as one, RunFolder(with_them) as other:
        fresh = [c for c in other.candidates("round_1") if c.sampled]
        ours = one.candidates("round_1")
        assert [(c.prompt, c.seed) for c in fresh] == [(c.prompt, c.seed) for c in ours]
        assert torch.equal(other.latents("round_1", [c.position for c in fresh]), one.latents("round_1"))


def test_a_part_of_the_prompts_takes_over_from_its_own_rounds(tmp_path: Path) -> None:
    """Two parts: round 2 draws for the prompts of round 0 and takes from it; round 1 has nothing to take."""
    loop = make_loop(tmp_path, settings=changed(rounds=3, prompt_parts=2, sampling={"earlier_rounds": 1}))
    loop.go()
    assert set(sources(loop.run, 1)) == {None}
    assert {s[0] for s in sources(loop.run, 2) if s} == {"round_0"}
    assert len(sources(loop.run, 2)) == 2 * EACH * len(loop.prompts_of(0))


def test_photos_and_other_prompts_are_left_out(tmp_path: Path) -> None:
    photos = Photos("a photo of a sks robot", np.zeros((2, 8, 8, 3), np.uint8))
    sizes = {"steps": 1, "guidance": 1.0, "width": 64, "height": 64}
    settings = SamplingSettings(candidates_per_prompt=2, photo_candidates=True, **sizes)
    with RunFolder(tmp_path) as run:
        for number, before in ((0, []), (1, ["round_0"])):
            sample_set(
                run, f"round_{number}", FakeModel(), ("p", "q"), 2, settings, 5, number, compared=True, photos=photos,
                before=before,
            )  # fmt: skip
        found = run.candidates("round_1")
        assert [(c.prompt, c.photo, c.earlier and c.earlier[1]) for c in found if c.prompt == photos.caption] == [
            (photos.caption, None, None), (photos.caption, None, None), (photos.caption, 0, None),
            (photos.caption, 1, None), (photos.caption, None, 4), (photos.caption, None, 5),
        ]  # fmt: skip
        assert [c.prompt for c in of_rounds_before(run, ["round_1"], ["q"])] == ["q", "q"]


def test_forgotten_with_their_set_and_absent_in_older_folders(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, settings=AGAIN)
    loop.go()
    before = loop.run.candidates("round_0")
    loop.run.forget_set("round_1")
    assert {r[0] for r in loop.run._db.execute("SELECT set_name FROM earlier")} == {"round_2"}
    loop.run.close()
    with sqlite3.connect(tmp_path / "records.sqlite") as db:
        db.execute("DROP TABLE earlier")
    with RunFolder(tmp_path) as run:
        assert run.candidates("round_0") == before


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    loop = make_loop(tmp_path_factory.mktemp("whole") / "run", settings=AGAIN)
    loop.go()
    loop.run.close()
    return loop.run.path


def test_interrupted_after_any_batch_it_ends_the_same(tmp_path: Path, uninterrupted: Path) -> None:
    """Raised at each of the six progress calls of the second round's drawing: 3 fresh batches, 3 taken over."""

    def interrupt_at(at: int) -> tuple[list[str], Callable]:
        seen: list[str] = []

        def interrupt(stage: str, *_: object, **__: object) -> None:
            if stage == "sample round_1":
                seen.append(stage)
                if len(seen) == at:
                    raise KeyboardInterrupt

        return seen, interrupt

    for at in range(1, 7):
        seen, interrupt = interrupt_at(at)
        with pytest.raises(KeyboardInterrupt):
            make_loop(tmp_path / str(at), settings=AGAIN, progress=interrupt).go()
        make_loop(tmp_path / str(at), settings=AGAIN, progress=interrupt).go()
        assert len(seen) == 6, "a batch was made twice or not at all"
        with RunFolder(tmp_path / str(at)) as run, RunFolder(uninterrupted) as whole:
            assert outcome(run, 3) == outcome(whole, 3)
            assert difference(adapters(run, 3)[3], adapters(whole, 3)[3]) == 0


def test_killed_while_they_are_taken_over_it_ends_the_same(tmp_path: Path, uninterrupted: Path) -> None:
    nursery = Nursery(tmp_path, settings=AGAIN)
    try:
        _, events = nursery.run(tmp_path / "whole")
        first = events.index("sample round_1")
        for number, kill in enumerate((first + 2, first + 3, first + 4, first + 5)):
            folder = tmp_path / f"killed_{number}"
            status, _ = nursery.run(folder, kill_after=kill, delay=0.001 * number)
            assert status == -9
            assert nursery.run(folder)[0] == 0
            with RunFolder(folder) as run, RunFolder(uninterrupted) as whole:
                assert outcome(run, 3) == outcome(whole, 3)
                assert difference(adapters(run, 3)[3], adapters(whole, 3)[3]) == 0
    finally:
        nursery.close()


def test_the_progress_counts_what_is_drawn(tmp_path: Path) -> None:
    """Taking over is no drawing: its batches report the 12 drawn ones again."""
    told = []

    def tell(stage: str, done: int, of: int, *_: object, **__: object) -> None:
        if stage == "sample round_1":
            told.append((done, of))

    make_loop(tmp_path, settings=AGAIN, progress=tell).go()
    assert told == [(4, 12), (8, 12), *[(12, 12)] * 4]


def test_the_estimate_by_hand() -> None:
    """3 rounds of 3 prompts with 4 candidates: 36 drawn; with 1 round before 12 + 12 are used again, with 2: 12 + 24.

    In two parts (2 prompts, 1, 2) 8 + 4 + 8 are drawn, and the third round uses the first one's 8. Those used again
    take disk as others do.
    """
    given = {n: changed(rounds=3, sampling={"earlier_rounds": n}) for n in (0, 1, 2)}
    held_out = 4 * 2 * 3
    assert count(given[0], 3, 2) == Counted(36, 0, held_out)
    assert count(given[1], 3, 2) == Counted(36, 0, held_out, again=24)
    assert count(given[2], 3, 2) == Counted(36, 0, held_out, again=36)
    parts = changed(rounds=3, prompt_parts=2, sampling={"earlier_rounds": 1})
    assert count(parts, 3, 2) == Counted(20, 0, held_out, again=8)
    more = gigabytes(count(given[1], 3, 2), given[1], 192, 10) - gigabytes(count(given[0], 3, 2), given[0], 192, 10)
    assert more == pytest.approx(24 * (0.6 * 64 * 64 * 3 + 4 * 192) / 1e9)
    assert pictures_words(Counted(36, 0, 16, again=24)) == (
        "Pictures to draw: 36 candidates and 16 on held-out prompts. 24 candidates of earlier rounds are used again."
    )


def test_the_time_left_counts_their_scores_and_no_drawing() -> None:
    found = {(p.round, p.stage): p.units for p in plan_parts(AGAIN, 3, 2)}
    assert [found[r, "draw"] for r in range(3)] == [12, 12, 12]
    assert [found[r, "score"] for r in range(3)] == [12, 24, 24]


def test_drafts_are_refused() -> None:
    with pytest.raises(ValueError, match="earlier_rounds 1 does not go with draft_steps 2: only fresh candidates"):
        SamplingSettings(steps=8, draft_steps=2, earlier_rounds=1)


def test_held_out_pictures_do_not_depend_on_it() -> None:
    assert SamplingSettings(earlier_rounds=2).of_held_out() == SamplingSettings()
    off, on = SamplingSettings().described(), SamplingSettings(earlier_rounds=2).described()
    assert on.pop("earlier_rounds") == 2 and on == off


def test_a_loop_of_one_prompt(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, settings=AGAIN)
    one = type(loop)(**{**vars(loop), "prompts": PromptSet(PROMPTS.train[:1], PROMPTS.held_out)})
    assert one.go() == 3 and len(one.run.candidates("round_2")) == 2 * EACH
