"""The gradient self-test in a run: once, before training, without side effects; wrong gradients end the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loops import FakeModel, adapters, changed, difference, make_loop

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training import self_test
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData


class Halved(torch.autograd.Function):
    """Identity with half the gradient, as a block that writes in place may silently give."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 0.5 * gradient


class Wrong(FakeModel):
    def predict(self, noised, times, cond):
        return Halved.apply(super().predict(noised, times, cond))


def test_wrong_gradients_end_a_run_before_anything_is_trained(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "run", Wrong())
    with pytest.raises(UserError, match="the gradient self-test of TinyDenoiser failed"):
        loop.go()
    assert loop.run.training(0) == [] and loop.run.load_state("adapter_1") is None
    assert len(loop.run.candidates("round_0")) == 12, "what was drawn is kept"
    assert make_loop(tmp_path / "run").go() == 2


class Narrow(FakeModel):
    """A model whose first `full` forwards with gradients run out of memory."""

    full = 1

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def predict(self, noised, times, cond):
        self.asked += torch.is_grad_enabled()
        if torch.is_grad_enabled() and self.asked <= self.full:
            raise torch.OutOfMemoryError("out of memory")
        return super().predict(noised, times, cond)


class TooNarrow(Narrow):
    full = 10_000


def test_a_level_that_does_not_fit_one_sample_is_skipped(tmp_path: Path) -> None:
    """Training continues at the level that fits, without trying the larger one again."""
    loop = make_loop(tmp_path / "run", Narrow())
    assert loop.go() == 2 and loop.run.fact("memory") == "low"
    found = loop.run.fact("self_test")
    assert found.pop("relative_error") < 0.02
    assert found == {"denoiser": "TinyDenoiser", "device": "cpu", "precision": "fp32", "level": "low"}


def test_a_self_test_that_fits_at_no_level_has_not_passed(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "run", TooNarrow())
    with pytest.raises(UserError, match="does not fit into memory at the level 'low'"):
        loop.go()
    assert loop.run.fact("self_test") is None and loop.run.load_state("adapter_1") is None
    assert (
        self_test.passed(loop.model, loop.adapter, "fast") is None
        and self_test.passed(loop.model, loop.adapter, "low") is None
    )


def test_it_runs_once_per_model_without_side_effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, check = [], self_test.check_gradient

    def counted(*args) -> float:
        asked.append(error := check(*args))
        return error

    monkeypatch.setattr(self_test, "check_gradient", counted)
    told = []
    tested = make_loop(tmp_path / "tested", progress=lambda stage, *_, **__: told.append(stage))
    tested.go()
    assert len(asked) == 1 and asked[0] < 0.02
    assert not [stage for stage in told if "test" in stage]
    assert make_loop(tmp_path / "tested", settings=changed(rounds=3)).go() == 3 and len(asked) == 2, (
        "another process, another model"
    )
    monkeypatch.setattr(self_test, "check_gradient", lambda *_: 0.0)
    untested = make_loop(tmp_path / "untested")
    untested.go()
    assert [difference(a, b) for a, b in zip(adapters(tested.run), adapters(untested.run), strict=True)] == [0, 0, 0]


def test_other_layers_or_patches_are_tested_again() -> None:
    """A passed test applies to this denoiser object with its patches and layers, not to its class."""
    model = FakeModel()
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2), seed=0)
    data = PairData(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), model.encode_prompts(["a"]))
    self_test.self_test(model, adapter, data, "fast")
    assert self_test.passed(model, adapter, "fast") is not None and self_test.passed(model, adapter, "low") is None
    model.fingerprint = "patched"
    assert self_test.passed(model, adapter, "fast") is None
    assert self_test.passed(FakeModel(), adapter, "fast") is None
