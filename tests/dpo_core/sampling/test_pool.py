"""The wider pool: other LoRA strengths, the base model and the reference photos as candidates."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from loops import PROMPTS as SPLIT
from loops import FakeModel, Mean, changed, make_loop

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.loop.drafts import finish_plan
from dreambooth_dpo.dpo_core.loop.rounds import Loop
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.sampling.pool import Photos, photos_of
from dreambooth_dpo.dpo_core.sampling.sets import plan, sample_set
from dreambooth_dpo.dpo_core.settings import SamplingSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter

PROMPTS = ("a sks robot", "a sks robot at sea")
PICTURES = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
PHOTOS = Photos("a photo of a sks robot", PICTURES)
WIDE = SamplingSettings(
    candidates_per_prompt=4, steps=2, guidance=1.0, width=64, height=64, batch_size=3, lora_spread=0.5,
    base_candidates=1, photo_candidates=True,
)  # fmt: skip


class Scaled(FakeModel):
    """A FakeModel whose latents are multiplied by the LoRA's strength; it counts the changes of strength."""

    fixed_strength = ""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.asked = 1.0, []

    @contextmanager
    def at_lora_strength(self, factor: float) -> Iterator[None]:
        self.factor, before = factor, self.factor
        self.asked.append(factor)
        try:
            yield
        finally:
            self.factor = before

    def sample(self, prompts, seeds, settings, on_step=None):
        return self.factor * super().sample(prompts, seeds, settings)


def fill(folder: Path, model: FakeModel, settings: SamplingSettings = WIDE, **more) -> RunFolder:
    run = RunFolder(folder)
    sample_set(
        run, "round_0", model, PROMPTS, settings.candidates_per_prompt, settings, 7, 0, compared=True, photos=PHOTOS,
        **more,
    )  # fmt: skip
    return run


def test_the_plan_of_a_wide_pool() -> None:
    """Strengths 1, 0.5, 1.5 and 0 for each prompt, two photos after the last; batches of one strength, photos last."""
    planned = plan(PROMPTS, 4, 7, 0, 3, WIDE.strengths(4), PHOTOS)
    assert [c.strength for c in planned] == [1, 0.5, 1.5, 0] * 3 + [1, 1]
    assert [c.photo for c in planned] == [None] * 12 + [0, 1]
    assert [c.prompt for c in planned[::4]] == [*PROMPTS, PHOTOS.caption, PHOTOS.caption]
    assert [c.chunk for c in planned] == [0, 1, 2, 3] * 3 + [4, 4]
    assert [(c.chunk, c.row) for c in planned[::4]] == [(0, 0), (0, 1), (0, 2), (4, 0)]


def test_noise_depends_on_prompt_and_number_alone() -> None:
    """A pool of strengths and photos has the seeds of the pool without; a caption among the prompts moves none."""
    plain = plan(PROMPTS, 4, 7, 0, 3)
    wide = plan(PROMPTS, 4, 7, 0, 3, WIDE.strengths(4), PHOTOS)
    assert [c.seed for c in wide[:8]] == [c.seed for c in plain]
    within = plan(PROMPTS, 4, 7, 0, 3, photos=Photos(PROMPTS[0], PICTURES))
    assert [c.photo for c in within] == [None] * 4 + [0, 1] + [None] * 4
    assert [c.seed for c in within if c.photo is None] == [c.seed for c in plain]
    assert [c.position for c in within] == list(range(10))


@pytest.mark.parametrize("count", [2, 4, 9])
def test_strengths_of_a_prompts_candidates(count: int) -> None:
    given = SamplingSettings(lora_spread=0.3, base_candidates=1).strengths(count)
    assert given == [*([1, 0.7, 1.3] * 3)[: count - 1], 0]
    assert SamplingSettings().strengths(count) == [1] * count


def test_off_is_what_it_was(tmp_path: Path) -> None:
    """Positions, seeds, batches and rows without the new settings; nothing is written to the new table."""
    off = WIDE.model_copy(update={"lora_spread": 0.0, "base_candidates": 0, "photo_candidates": False})
    run = fill(tmp_path, model := Scaled(), off)
    assert [(c.position, c.chunk, c.row) for c in run.candidates("round_0")] == [(i, i // 3, i % 3) for i in range(8)]
    assert model.asked == [] and run._db.execute("SELECT count(*) FROM sources").fetchone() == (0,)
    assert not {"lora_spread", "base_candidates", "photo_candidates"} & off.described().keys()


def test_a_wide_set_is_stored_with_its_sources(tmp_path: Path) -> None:
    run, model = fill(tmp_path, Scaled()), FakeModel()
    stored = run.candidates("round_0")
    assert stored == plan(PROMPTS, 4, 7, 0, 3, WIDE.strengths(4), PHOTOS)
    latents, images = run.latents("round_0"), run.images("round_0")
    for c in stored[:12]:
        assert torch.equal(latents[c.position], c.strength * model.sample([c.prompt], [c.seed], WIDE)[0])
    assert torch.equal(latents[12:], model.encode_images(PICTURES)) and np.array_equal(images[12:], PICTURES)
    run.forget_set("round_0")
    assert run._db.execute("SELECT count(*) FROM sources").fetchone() == (0,)


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_an_interrupted_wide_set_ends_the_same(tmp_path: Path, batches: int) -> None:
    """Batches of 3, 3, 3, 3 and 2 photos, interrupted after some; progress counts all that are there."""
    told = []

    def interrupt(*a, **k) -> None:
        told.append(a[1])
        if len(told) == batches:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "a", Scaled(), progress=interrupt)
    model, rest = Scaled(), []
    resumed = fill(tmp_path / "a", model, progress=lambda *a, **k: rest.append(a[1]))
    whole = fill(tmp_path / "b", Scaled())
    assert told + rest == [3, 6, 9, 12, 14] and sum(model.batches) == max(0, 12 - 3 * batches)
    assert resumed.candidates("round_0") == whole.candidates("round_0")
    assert torch.equal(resumed.latents("round_0"), whole.latents("round_0"))


def test_a_changed_strength_is_another_set(tmp_path: Path) -> None:
    fill(tmp_path, Scaled())
    with pytest.raises(UserError, match="already holds other candidates"):
        fill(tmp_path, Scaled(), WIDE.model_copy(update={"lora_spread": 0.4}))


def test_a_folder_from_before_the_table_opens(tmp_path: Path) -> None:
    off = WIDE.model_copy(update={"lora_spread": 0.0, "base_candidates": 0, "photo_candidates": False})
    fill(tmp_path, Scaled(), off).close()
    with sqlite3.connect(tmp_path / "records.sqlite") as db:
        db.execute("DROP TABLE sources")
    with RunFolder(tmp_path) as run:
        assert run.candidates("round_0") == plan(PROMPTS, 4, 7, 0, 3)


def test_finished_drafts_keep_their_source() -> None:
    drafts = plan(PROMPTS, 4, 7, 0, 3, WIDE.strengths(4), PHOTOS)
    found = finish_plan(drafts, [1, 3, 5, 12], 2)
    assert [(c.strength, c.photo, c.seed) for c in found] == [
        (drafts[p].strength, drafts[p].photo, drafts[p].seed) for p in (1, 3, 5, 12)
    ]
    assert [(c.position, c.chunk, c.row) for c in found] == [(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 2, 0)]


def test_a_loop_trains_on_a_wide_pool(tmp_path: Path) -> None:
    """The photos are candidates of their caption, the first prompt of the list; pairs may hold them."""
    settings = changed(rounds=1, sampling={"lora_spread": 0.5, "base_candidates": 1, "photo_candidates": True})
    model = Scaled()
    photos = Photos(SPLIT.train[0], PICTURES)
    adapter = Adapter(model.denoiser, settings.adapter, seed=5)
    rewards = [Mean("fidelity", 0), Mean("alignment", 2)]
    loop = Loop(RunFolder(tmp_path), model, adapter, SPLIT, rewards, [], settings, photos=photos)
    assert loop.go() == 1
    drawn = loop.run.candidates("round_0")
    assert [c.photo for c in drawn[:6]] == [None] * 4 + [0, 1] and len(drawn) == 14
    assert {c.strength for c in loop.run.candidates("evaluation_0")} == {1.0}


def test_a_model_without_a_lora_is_refused_before_drawing(tmp_path: Path) -> None:
    for name, value in (("lora_spread", 0.3), ("base_candidates", 1)):
        with pytest.raises(UserError, match=rf"{name} is {value}.*Load the subject as a LoRA.*set {name} to 0"):
            make_loop(tmp_path, settings=changed(sampling={name: value}))
    with pytest.raises(UserError, match="photo_candidates is on, but no reference photos"):
        make_loop(tmp_path, settings=changed(sampling={"photo_candidates": True}))


def test_base_candidates_leave_others() -> None:
    with pytest.raises(ValueError, match="base_candidates 4 must be below candidates_per_prompt 4"):
        SamplingSettings(candidates_per_prompt=4, base_candidates=4)


def test_photos_have_the_runs_size_and_dreambooths_caption() -> None:
    """Three references of 16 x 24, two of them equal: two photos of 64 x 64."""
    references = np.stack([np.full((16, 24, 3), v, np.uint8) for v in (10, 200, 10)])
    concept = Concept("sks", "robot", references)
    found = photos_of(concept, WIDE)
    assert found.caption == "a photo of a sks robot" and found.images.shape == (2, 64, 64, 3)
    assert found.images[:, 0, 0, 0].tolist() == [10, 200]
    assert photos_of(concept, SamplingSettings()) is None
