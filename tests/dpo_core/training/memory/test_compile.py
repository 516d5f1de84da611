"""The compiled forward: it includes the adapter's hooks; without a working compiler, training does not start."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from loops import FakeModel, changed, difference, make_loop
from models import tiny_text_to_image
from pydantic import ValidationError
from trainers import make_trainer

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import AdapterSettings, TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.memory import compile as compiling
from dreambooth_dpo.dpo_core.training.memory.compile import check_compiler, compiled
from dreambooth_dpo.dpo_core.training.steps import train_steps

COMPILES = (
    any(map(shutil.which, ("g++", "clang++", "c++")))
    and (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()
)
needs_compiler = pytest.mark.skipif(
    not COMPILES, reason="torch.compile needs a C++ compiler and Python's headers, and one is not here"
)
CPU = torch.device("cpu")


def test_a_missing_compiler_is_an_error_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_, **__):
        raise RuntimeError("no C++ compiler\nwas found")

    monkeypatch.setattr(compiling, "_checked", set())
    monkeypatch.setattr(torch, "compile", fail)
    said = r"compile is on.*cpu: no C\+\+ compiler was found\. Install a C\+\+ compiler.*or turn compile off"
    with pytest.raises(UserError, match=said):
        make_loop(tmp_path / "run", settings=changed(train={"compile": True}))
    trainer = make_trainer(compile=True)
    with pytest.raises(UserError, match=said):
        train_steps(trainer)
    assert not trainer.optimizer.state and not trainer.model.denoiser.down_blocks[0]._forward_hooks


def test_compile_with_a_lower_memory_level_is_refused() -> None:
    with pytest.raises(ValidationError, match="compile does not go with memory low"):
        TrainSettings(compile=True, memory="low")


@pytest.mark.slow
@needs_compiler
def test_compiled_training_equals_the_plain_one_for_each_adapter() -> None:
    """Two adapters in turn on one denoiser: the second must not run the compiled hooks of the first."""
    model, ends = FakeModel(), {}
    for compile in (True, False):
        train_steps(make_trainer(model, steps=3, compile=compile))
        ends[compile] = train_steps(make_trainer(model, moved=True, steps=3, compile=compile))[-1]
        assert "forward" not in model.denoiser.__dict__
    assert ends[True]["loss"] == pytest.approx(ends[False]["loss"], rel=1e-3)
    assert ends[True]["grad_norm"] == pytest.approx(ends[False]["grad_norm"], rel=1e-3)


@pytest.mark.slow
@needs_compiler
def test_pictures_between_compiled_steps_compile_nothing_and_change_nothing() -> None:
    """Pictures of other shapes than the steps'; without the eager forward they would be compiled too."""
    ends, seen = {}, []
    for every in (0, 1):
        trainer = make_trainer(FakeModel(), steps=3, compile=True, sample_every=every)

        def show(done: int, trainer=trainer) -> None:
            before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            with torch.no_grad():
                trainer.model.denoiser(torch.zeros(1 + done, 3, 8, 8))
            seen.append(torch._dynamo.utils.counters["stats"]["unique_graphs"] - before)

        train_steps(trainer, show=show)
        ends[every] = trainer.adapter.state()
    assert seen == [0, 0, 0] and difference(ends[0], ends[1]) == 0


@pytest.mark.slow
@needs_compiler
def test_gradients_of_a_compiled_pipeline_equal_the_plain_ones() -> None:
    check_compiler(CPU)
    model = tiny_text_to_image()
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2.0, targets="attention"))
    with torch.no_grad():
        for layer in adapter.policy.values():
            layer.up.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
    x, times, cond = torch.randn(2, 4, 16, 16), torch.tensor([10, 500]), model.encode_prompts(["a robot", "a dog"])

    def gradients() -> list[torch.Tensor]:
        return list(torch.autograd.grad(model.predict(x, times, cond).square().mean(), adapter.parameters()))

    with model.training(), adapter.attached():
        plain = gradients()
        with compiled(model.denoiser, CPU):
            found = gradients()
    for one, other in zip(found, plain, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-4
