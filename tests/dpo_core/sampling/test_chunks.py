"""Batch size 0: free memory decides how many pictures are sampled at once, and does not change the results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from loops import FakeModel

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.sampling import sets as sampling
from dreambooth_dpo.dpo_core.sampling.sets import pictures, plan, sample_set
from dreambooth_dpo.dpo_core.settings import AUTO_CHUNK, SamplingSettings

PROMPTS = ("a sks robot", "a sks robot in a café", "a sks robot at sea")
AUTO = SamplingSettings(steps=2, guidance=1.0, width=64, height=64, batch_size=0)
EACH = 100


class Limited(FakeModel):
    """A model whose sampling takes EACH bytes per picture; memory for `fits` pictures."""

    def __init__(self, fits: int = 1000) -> None:
        super().__init__()
        self.fits, self.tried, self.asked = fits, [], []

    def sample(self, prompts, seeds, settings, on_step=None):
        self.tried.append(len(seeds))
        if len(seeds) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().sample(prompts, seeds, settings)

    def pictures_at_once(self, settings, most):
        self.asked.append(most)


class Meter:
    """Reports the memory of the model's last sampling and a fixed free memory; counts its starts."""

    def __init__(self, model: Limited, free: int) -> None:
        self.model, self._free, self.started = model, free, []

    def start(self) -> None:
        self.started.append(len(self.model.batches))

    def taken(self) -> int:
        assert len(self.model.batches) == self.started[-1] + 1, "asked when one part was drawn since the start"
        return EACH * self.model.batches[-1]

    def free(self) -> int:
        return self._free


@pytest.fixture
def metered(monkeypatch):
    """A model with a meter that reports `free` bytes."""

    def make(free: int, fits: int = 1000) -> tuple[Limited, Meter]:
        model = Limited(fits)
        meter = Meter(model, free)
        monkeypatch.setattr(sampling, "meter_for", lambda device: meter)
        return model, meter

    return make


def fill(folder: Path, model: FakeModel, settings: SamplingSettings = AUTO, per_prompt: int = 7, **more) -> RunFolder:
    """21 candidates: a batch of 16 and one of 5."""
    run = RunFolder(folder)
    sample_set(run, "round_0", model, PROMPTS, per_prompt, settings, seed=7, salt=0, **more)
    return run


def same(one: RunFolder, other: RunFolder) -> None:
    assert one.candidates("round_0") == other.candidates("round_0")
    assert torch.equal(one.latents("round_0"), other.latents("round_0"))
    assert np.array_equal(one.images("round_0"), other.images("round_0"))


@pytest.mark.parametrize(
    ("free", "parts"),
    [
        (5 * EACH, [1, 4, 4, 4, 3, 4, 1]),  # 80 % of five
        (1 * EACH, [1] * 21),
        (100 * EACH, [1, 15, 5]),
    ],
)
def test_a_first_part_of_one_picture_decides(tmp_path, metered, free, parts):
    model, meter = metered(free)
    drawn = fill(tmp_path / "a", model)
    assert model.batches == parts and meter.started == [0] and model.asked == [16]
    same(drawn, fill(tmp_path / "b", FakeModel(), AUTO.model_copy(update={"batch_size": 16})))


def test_a_size_that_is_too_large_is_halved(tmp_path, metered):
    """The meter gives 12, memory is for 4: 12 and 6 fail once each."""
    model, meter = metered(15 * EACH, fits=4)
    drawn = fill(tmp_path / "a", model)
    assert model.tried == [1, 12, 6, 3, 3, 3, 3, 3, 3, 2] and meter.started == [0]
    same(drawn, fill(tmp_path / "b", FakeModel(), AUTO.model_copy(update={"batch_size": 16})))


def test_no_memory_for_one_picture_is_an_error_with_a_remedy(tmp_path, metered):
    model, _ = metered(5 * EACH, fits=0)
    with pytest.raises(UserError, match=r"one picture of 64x64 does not fit.*smaller size"):
        fill(tmp_path, model)
    assert model.tried == [1]


def test_a_resumed_set_has_the_same_plan_with_other_free_memory(tmp_path, metered):
    def interrupt(*a, **k) -> None:
        raise KeyboardInterrupt

    model, _ = metered(3 * EACH)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "a", model, progress=interrupt)
    assert RunFolder(tmp_path / "a").chunks("round_0") == {0} and sum(model.batches) == AUTO_CHUNK
    model, meter = metered(100 * EACH)
    resumed = fill(tmp_path / "a", model)
    assert model.batches == [1, 4] and meter.started == [0]
    same(resumed, fill(tmp_path / "b", FakeModel(), AUTO.model_copy(update={"batch_size": 16})))
    assert resumed.candidates("round_0") == plan(PROMPTS, 7, 7, 0, 16)
    model, meter = metered(100 * EACH)
    fill(tmp_path / "a", model)
    assert model.batches == meter.started == model.asked == [], "a finished set asks for nothing"


def test_a_fixed_batch_size_uses_no_meter(tmp_path, metered):
    model, meter = metered(EACH)
    fill(tmp_path, model, AUTO.model_copy(update={"batch_size": 10}))
    assert model.batches == [10, 10, 1] and meter.started == model.asked == []


def test_the_hosts_estimate_comes_before_the_meter(tmp_path, metered):
    class Hosted(Limited):
        def pictures_at_once(self, settings, most):
            self.asked.append((settings, most))
            return 6

    _, meter = metered(EACH)
    model = Hosted()
    fill(tmp_path, model)
    assert model.batches == [6, 6, 4, 5] and model.asked == [(AUTO, 16)] and meter.started == []


def test_without_a_meter_the_size_is_a_constant(tmp_path):
    model = FakeModel()
    fill(tmp_path, model)
    assert model.batches == [8, 8, 5]


def test_pictures_without_a_set_are_sampled_in_the_same_way(metered):
    prompts, seeds = [PROMPTS[i % 3] for i in range(18)], list(range(18))
    model, _ = metered(15 * EACH, fits=7)
    found = pictures(model, prompts, seeds, AUTO)
    assert model.tried == [1, 12, 6, 6, 3, 2]
    plain = FakeModel()
    assert np.array_equal(found, plain.decode(plain.sample(prompts, seeds, AUTO)))
