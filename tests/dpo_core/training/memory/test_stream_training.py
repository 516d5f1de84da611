"""Training at level "stream" on a device stand-in: the whole trainer, fallback from other levels, the next round."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from models import tiny_text_to_image

from dreambooth_dpo.benchmarks.common.device_stand_in import spoiled
from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import AdapterSettings, TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData
from dreambooth_dpo.dpo_core.training.memory.checkpointing import checkpointed_blocks
from dreambooth_dpo.dpo_core.training.memory.levels import LEVELS, at_level
from dreambooth_dpo.dpo_core.training.round import train_round
from dreambooth_dpo.dpo_core.training.self_test import self_test
from dreambooth_dpo.dpo_core.training.steps import train_steps
from dreambooth_dpo.dpo_core.training.trainer import Trainer


def test_the_self_test_passes_and_training_takes_the_same_steps() -> None:
    """The whole trainer on the stand-in: reference bank, pieces, self-test, AdamW."""

    def trained(level: str) -> tuple[Trainer, list[dict]]:
        model = tiny_text_to_image()
        latents = torch.randn(6, 4, 16, 16, generator=torch.Generator().manual_seed(3))
        data = PairData(latents[:3], latents[3:], model.encode_prompts(["a", "a b", "a c"]))
        adapter = Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2.0), seed=0)
        settings = TrainSettings(steps=3, batch_size=2, warmup_steps=0, learning_rate=1e-3, memory=level)
        trainer = Trainer(model, adapter, data, settings, 11)
        with spoiled(model.denoiser, ahead=True) if level == "stream" else nullcontext() as mover:
            trainer.mover = mover or trainer.mover
            return trainer, train_steps(trainer)

    (one, expected), (two, found) = trained("low"), trained("stream")
    assert [r["loss"] for r in found] == [r["loss"] for r in expected]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters, two.parameters, strict=True))
    with spoiled(two.model.denoiser) as mover, at_level(two.model.denoiser, "stream", mover=mover):
        assert self_test(two.model, two.adapter, two.data, "stream") < 0.01


@pytest.mark.parametrize("whole", [True, False])
def test_auto_ends_at_stream_and_the_next_round_begins_there(tmp_path, whole: bool, caplog) -> None:
    """Out of memory at every other level; where the weights did not fit, no other level is tried."""
    model, inner = tiny_text_to_image(), DiffusersTextToImage.predict
    block = next(iter(checkpointed_blocks(model.denoiser, layers=True).values()))
    model.whole, model.latent = whole, torch.randn(6, 4, 16, 16, generator=torch.Generator().manual_seed(3))

    def predict(*args):
        # A streamed block's forward is wrapped twice: by checkpointing, and for its turn.
        streaming = hasattr(getattr(vars(block).get("forward"), "__wrapped__", None), "__wrapped__")
        if torch.is_grad_enabled() and not streaming:
            raise torch.OutOfMemoryError("out of memory")
        return inner(model, *args)

    model.predict = predict
    data = PairData(model.latent[:3], model.latent[3:], model.encode_prompts(["a", "a b", "a c"]))
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2.0), seed=0)
    settings = TrainSettings(steps=2, batch_size=2, warmup_steps=0)
    with RunFolder(tmp_path / "run") as run:
        for number in range(2):
            caplog.clear()
            train_round(run, number, model, adapter, data, settings, seed=1)
            tried = [level for level in LEVELS if f"at memory level {level!r}" in caplog.text]
            assert tried == (["checkpointing", "low", "stream"] if whole and number == 0 else [])
            assert run.fact("memory") == "stream" == run.fact("self_test")["level"]
            assert len(run.training(number)) == 2


def test_stream_is_tried_without_the_next_block_before_it_gives_up() -> None:
    """Out of memory as long as two blocks are on the device: the step is taken again with one."""
    model, inner = tiny_text_to_image(), DiffusersTextToImage.predict
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    data = PairData(latents[:1], latents[1:], model.encode_prompts(["a"]))
    settings = TrainSettings(steps=2, batch_size=1, warmup_steps=0, memory="stream")
    trainer = Trainer(model, Adapter(model.denoiser, AdapterSettings(rank=2), seed=0), data, settings, 11)

    def predict(*args):
        if torch.is_grad_enabled() and (full or trainer.mover.ahead):
            raise torch.OutOfMemoryError("out of memory")
        return inner(model, *args)

    model.predict, full = predict, False
    with spoiled(model.denoiser, ahead=True) as trainer.mover:
        assert [r["step"] for r in train_steps(trainer)] == [0, 1]
        assert not trainer.mover.ahead and trainer.level == "stream"
        full = True
        with pytest.raises(UserError, match="at the level 'stream'"):
            train_steps(trainer)
