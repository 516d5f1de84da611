"""Sampling stage: candidates do not depend on interruptions, batches or the memory available."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from loops import FakeModel

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.sampling.sets import plan, sample_set
from dreambooth_dpo.dpo_core.scoring.sets import missing_positions
from dreambooth_dpo.dpo_core.settings import SamplingSettings
from dreambooth_dpo.dpo_core.settings.sampling import _LATER

PROMPTS = ("a sks robot", "a sks robot in a café", "a sks robot at sea")
SETTINGS = SamplingSettings(steps=2, guidance=1.0, width=64, height=64, batch_size=4)


class Small(FakeModel):
    """Runs out of memory above `fits` pictures, in `stage` ("sample" or "decode")."""

    def __init__(self, fits: int, stage: str = "sample") -> None:
        super().__init__()
        self.fits, self.stage = fits, stage
        self.failed = 0

    def _check(self, stage: str, count: int) -> None:
        if stage == self.stage and count > self.fits:
            self.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory")

    def sample(self, prompts, seeds, settings, on_step=None):
        self._check("sample", len(seeds))
        return super().sample(prompts, seeds, settings)

    def decode(self, latents):
        self._check("decode", len(latents))
        return super().decode(latents)


def fill(
    folder: Path, model: FakeModel, settings: SamplingSettings = SETTINGS, per_prompt: int = 3, **more
) -> RunFolder:
    run = RunFolder(folder)
    sample_set(run, "round_0", model, PROMPTS, per_prompt, settings, seed=7, salt=0, **more)
    return run


def test_the_plan_goes_prompt_by_prompt() -> None:
    """3 prompts x 3 candidates in batches of 4: 4 + 4 + 1."""
    planned = plan(PROMPTS, 3, seed=7, salt=0, chunk_size=4)
    assert [c.prompt_index for c in planned] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [c.prompt for c in planned[::3]] == list(PROMPTS)
    assert [(c.chunk, c.row) for c in planned] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 0),
    ]
    assert len({c.seed for c in planned}) == 9


def test_seeds_depend_on_seed_round_and_position_alone() -> None:
    def seeds(seed: int = 7, salt: int = 0, chunk_size: int = 4) -> list[int]:
        return [c.seed for c in plan(PROMPTS, 3, seed, salt, chunk_size)]

    assert seeds() == seeds(chunk_size=1)
    assert set(seeds()).isdisjoint(seeds(salt=1)) and set(seeds()).isdisjoint(seeds(seed=8))
    assert all(0 <= s < 2**31 for s in seeds())


def test_an_empty_prompt_list_is_refused() -> None:
    with pytest.raises(UserError, match=r"prompt list is empty.*Add prompts"):
        plan((), 2, 0, 0, 4)


def test_a_set_is_filled_and_filling_again_does_nothing(tmp_path: Path) -> None:
    told = []
    run = fill(tmp_path, FakeModel(), progress=lambda *a, **k: told.append(a[:3]))
    assert told == [("sample round_0", 4, 9), ("sample round_0", 8, 9), ("sample round_0", 9, 9)]
    assert run.candidates("round_0") == plan(PROMPTS, 3, 7, 0, 4)
    model = FakeModel()
    fill(tmp_path, model)
    assert model.batches == []


def test_stored_latents_and_pictures_are_those_of_the_model(tmp_path: Path) -> None:
    run, model = fill(tmp_path, FakeModel()), FakeModel()
    kept = run.candidates("round_0")[5]
    latents = model.sample([kept.prompt], [kept.seed], SETTINGS)
    assert torch.equal(run.latents("round_0")[5], latents[0])
    assert np.array_equal(run.images("round_0", [5]), model.decode(latents))


def test_an_interrupted_set_samples_the_missing_batches_only(tmp_path: Path) -> None:
    def interrupt(*a, **k) -> None:
        if a[1] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "a", FakeModel(), progress=interrupt)
    model = FakeModel()
    resumed, whole = fill(tmp_path / "a", model), fill(tmp_path / "b", FakeModel())
    assert model.batches == [1]
    assert torch.equal(resumed.latents("round_0"), whole.latents("round_0"))


@pytest.mark.parametrize("stage", ["sample", "decode"])
@pytest.mark.parametrize("fits", [1, 2, 3])
def test_running_out_of_memory_halves_the_batch_and_changes_nothing(tmp_path: Path, fits: int, stage: str) -> None:
    model = Small(fits, stage)
    small, whole = fill(tmp_path / "a", model), fill(tmp_path / "b", FakeModel())
    assert model.failed > 0
    assert small.candidates("round_0") == whole.candidates("round_0")
    assert torch.equal(small.latents("round_0"), whole.latents("round_0"))
    assert np.array_equal(small.images("round_0"), whole.images("round_0"))


def test_a_size_that_ran_out_of_memory_is_not_tried_again(tmp_path: Path) -> None:
    """Batches of 4, 4 and 1, memory for 1: sizes 4 and 2 fail once each, and the second batch starts with 1."""
    model = Small(1)
    fill(tmp_path, model)
    assert model.failed == 2 and model.batches == [1] * 9


def test_a_set_continues_after_running_out_of_memory(tmp_path: Path) -> None:
    def interrupt(*a, **k) -> None:
        if a[1] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "a", Small(3), progress=interrupt)
    resumed, whole = fill(tmp_path / "a", Small(1)), fill(tmp_path / "b", FakeModel())
    assert resumed.candidates("round_0") == whole.candidates("round_0")
    assert torch.equal(resumed.latents("round_0"), whole.latents("round_0"))


def test_settings_stored_before_a_new_setting_existed_are_recognised() -> None:
    """A start or set stored before a setting existed resumes with the setting's default and with no other value."""
    described = SETTINGS.described()
    assert described == SETTINGS.model_dump(mode="json", exclude={n for n, _ in _LATER})
    assert SETTINGS.model_copy(update={"guidance_until": 0.5}).described() == described | {"guidance_until": 0.5}
    assert SETTINGS.model_copy(update={"batch_size": 0}).described() == described | {"batch_size": 0}


def test_no_memory_for_one_picture_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one picture of 64x64 does not fit.*smaller size"):
        fill(tmp_path, Small(0))


def test_nan_names_prompt_and_seed(tmp_path: Path) -> None:
    bad = plan(PROMPTS, 3, 7, 0, 4)[6]

    class Poisoned(FakeModel):
        def sample(self, prompts, seeds, settings, on_step=None):
            latents = super().sample(prompts, seeds, settings)
            latents[[s == bad.seed for s in seeds], 1] = float("nan")
            return latents

    with pytest.raises(UserError, match=rf"NaN or infinity for prompt '{bad.prompt}', seed {bad.seed}\.") as caught:
        fill(tmp_path, Poisoned())
    assert "Lower the guidance" in str(caught.value)
    assert RunFolder(tmp_path).chunks("round_0") == {0}


@pytest.mark.parametrize(
    ("change", "settings"),
    [({"per_prompt": 2}, SETTINGS), ({}, SETTINGS.model_copy(update={"batch_size": 3}))],
    ids=["fewer candidates", "another batch size"],
)
def test_another_plan_for_a_stored_set_is_refused(tmp_path: Path, change: dict, settings: SamplingSettings) -> None:
    fill(tmp_path, FakeModel())
    with pytest.raises(UserError, match=r"already holds other candidates in 'round_0'.*new output folder"):
        fill(tmp_path, FakeModel(), settings, **change)


def test_missing_positions_are_those_without_a_score_of_that_fingerprint(tmp_path: Path) -> None:
    run = fill(tmp_path, FakeModel())
    assert missing_positions(run, "round_0", "fidelity", "f").tolist() == list(range(9))
    run.add_scores("round_0", "fidelity", "f", [0, 4], np.zeros(2))
    assert missing_positions(run, "round_0", "fidelity", "f").tolist() == [1, 2, 3, 5, 6, 7, 8]
    assert missing_positions(run, "round_0", "fidelity", "g").tolist() == list(range(9))


class Black(FakeModel):
    """Decodes every latent to black."""

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        return np.zeros((len(latents), 8, 8, 3), np.uint8)


def test_black_pictures_end_a_run_at_its_first_batch(tmp_path: Path) -> None:
    """Held-out pictures too, which nobody compares; in a run that has pictures, a later set may be black."""
    settings, run, model = SamplingSettings(batch_size=2), RunFolder(tmp_path), Black()
    with pytest.raises(UserError, match="all pixels of the first 2 pictures have one colour"):
        sample_set(run, "evaluation_0", model, ["a", "b"], 2, settings, 0, 0)
    assert not run.has_candidates() and model.batches == [2]
    sample_set(run, "evaluation_0", FakeModel(), ["a", "b"], 2, settings, 0, 0)
    sample_set(run, "evaluation_1", Black(), ["a", "b"], 2, settings, 0, 0)
    assert len(run.candidates("evaluation_1")) == 4
