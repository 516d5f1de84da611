"""The gradient self-test of a run: once, before anything is trained; nothing is left of it, and wrong gradients end the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loops import FakeModel, adapters, changed, difference, make_loop

from dreambooth_dpo.dpo_core import rounds
from dreambooth_dpo.dpo_core.errors import UserError


class Halved(torch.autograd.Function):
    """The identity, with half the gradient: what a block that writes in place may do, without a word."""

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


def test_a_level_that_one_sample_does_not_fit_into_is_passed_over(tmp_path: Path) -> None:
    """As where training itself would begin at a smaller level."""

    class Narrow(FakeModel):
        asked = 0

        def predict(self, noised, times, cond):
            self.asked += torch.is_grad_enabled()
            if torch.is_grad_enabled() and self.asked == 1:
                raise torch.OutOfMemoryError("out of memory")
            return super().predict(noised, times, cond)

    loop = make_loop(tmp_path / "run", Narrow())
    assert loop.go() == 2 and loop.run.fact("self_test") == ["TinyDenoiser", "cpu", "fp32", "fast"]


def test_it_runs_once_a_run_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, test = [], rounds.self_test

    def counted(model, adapter, data) -> float:
        asked.append(error := test(model, adapter, data))
        return error

    monkeypatch.setattr(rounds, "self_test", counted)
    told = []
    tested = make_loop(tmp_path / "tested", progress=lambda stage, *_, **__: told.append(stage))
    tested.go()
    assert len(asked) == 1 and asked[0] < 0.02
    assert not [stage for stage in told if "test" in stage]
    assert make_loop(tmp_path / "tested", settings=changed(rounds=3)).go() == 3 and len(asked) == 1
    monkeypatch.setattr(rounds, "self_test", lambda *_: 0.0)
    untested = make_loop(tmp_path / "untested")
    untested.go()
    assert [difference(a, b) for a, b in zip(adapters(tested.run), adapters(untested.run), strict=True)] == [0, 0, 0]
