"""Memory levels: the same training at each level, and fallback to a lower level on out-of-memory."""

from __future__ import annotations

import pytest
import torch
from loops import FakeModel
from models import tiny_text_to_image
from torch import nn
from trainers import make_data, make_trainer

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import AdapterSettings, TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData
from dreambooth_dpo.dpo_core.training.memory.checkpointing import checkpointed_blocks
from dreambooth_dpo.dpo_core.training.memory.levels import LEVELS, at_level, first_level, next_level, streams
from dreambooth_dpo.dpo_core.training.round import train_round
from dreambooth_dpo.dpo_core.training.self_test import self_test
from dreambooth_dpo.dpo_core.training.steps import train_steps
from dreambooth_dpo.dpo_core.training.trainer import Trainer

NET = FakeModel().denoiser


def unet_trainer(**settings: object) -> Trainer:
    """Five pairs on a tiny UNet with transformer layers, six steps of three pairs."""
    model = tiny_text_to_image()
    draws = torch.Generator().manual_seed(3)
    latents = torch.randn(10, 4, 16, 16, generator=draws)
    data = PairData(latents[:5], latents[5:], model.encode_prompts([f"a photo of a robot {i}" for i in range(5)]))
    given = {"steps": 6, "batch_size": 3, "warmup_steps": 0, "learning_rate": 1e-3, "checkpoint_every": 2, **settings}
    return Trainer(
        model, Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2.0), seed=0), data, TrainSettings(**given), 11
    )


def states_agree(one: Trainer, other: Trainer, tolerance: float = 2e-3) -> bool:
    """Relative to the learned weights, since AdamW turns a rounding error of a tiny gradient into a whole step."""
    a, b = (torch.cat([p.detach().flatten() for p in t.parameters]) for t in (one, other))
    return float((a - b).norm() / a.norm()) < tolerance


def test_the_order_of_levels_and_only_auto_falls_back() -> None:
    auto, chosen = TrainSettings(), TrainSettings(memory="checkpointing")
    model = tiny_text_to_image()
    assert first_level(auto) == "fast" and first_level(chosen) == "checkpointing"
    assert [next_level(auto, level, model.denoiser) for level in LEVELS] == ["checkpointing", "low", "stream", None]
    assert next_level(chosen, "checkpointing", model.denoiser) is None
    assert next_level(TrainSettings(compile=True), "fast", model.denoiser) is None
    assert next_level(auto, "fast", nn.Linear(2, 2)) == "low" and next_level(auto, "low", nn.Linear(2, 2)) is None


def test_weights_that_do_not_fit_leave_only_the_last_level() -> None:
    auto, chosen, compiled = TrainSettings(), TrainSettings(memory="low"), TrainSettings(compile=True)
    assert first_level(auto, whole=False) == "stream" and first_level(chosen, whole=False) == "low"
    assert [streams(s) for s in (auto, chosen, compiled, TrainSettings(memory="stream"))] == [None, False, False, True]
    with pytest.raises(UserError, match="no blocks in Linear"), at_level(nn.Linear(2, 2), "stream"):
        raise AssertionError("trained")


@pytest.mark.parametrize(
    "more",
    [
        {},
        pytest.param({"reference_bank": 2, "accumulation": 2}, marks=pytest.mark.slow),  # each has tests of its own
        {"loser_guard": 0.6, "objective": "ipo"},
    ],
    ids=str,
)
@pytest.mark.parametrize("level", LEVELS[1:])
def test_every_level_takes_the_same_steps(level: str, more: dict) -> None:
    fast, other = unet_trainer(memory="fast", **more), unet_trainer(memory=level, **more)
    one, two = train_steps(fast), train_steps(other)
    assert [r["step"] for r in two] == list(range(6))
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=2e-3) and b["winner_error"] == pytest.approx(
            a["winner_error"], abs=2e-6
        )
    assert states_agree(fast, other)


@pytest.mark.parametrize("level", ["low", "stream"])
def test_low_and_stream_process_one_pair_at_a_time(level: str) -> None:
    trainer, sizes = unet_trainer(memory=level, steps=1), []
    with at_level(trainer.model.denoiser, level):
        self_test(trainer.model, trainer.adapter, trainer.data, level)
    inner = trainer.model.predict
    trainer.model.predict = lambda noised, times, cond: (sizes.append(len(noised)), inner(noised, times, cond))[1]
    train_steps(trainer)
    assert sizes == [2] * 6  # three pairs, a reference and a policy forward each


def short_of_memory(trainer: Trainer, fits: str, since: int = 0) -> None:
    """From step `since` on, forwards with gradients run out of memory at every level before `fits`."""
    inner, advance, at = trainer.model.predict, trainer.advance, [0]

    def counted(step: int):
        at[0] = step
        return advance(step)

    def predict(noised, times, cond):
        if torch.is_grad_enabled() and at[0] >= since and LEVELS.index(trainer.level) < LEVELS.index(fits):
            raise torch.OutOfMemoryError("out of memory")
        return inner(noised, times, cond)

    trainer.model.predict, trainer.advance = predict, counted


@pytest.mark.parametrize("fits", LEVELS[1:])
@pytest.mark.parametrize("since", [0, 3])
def test_auto_falls_back_and_loses_no_step(fits: str, since: int, caplog) -> None:
    """Out of memory at step `since`: training continues from the last good state; each step has one record."""
    plain, trainer, saved = unet_trainer(memory="fast"), unet_trainer(), []
    expected = train_steps(plain)
    short_of_memory(trainer, fits, since)
    records = train_steps(trainer, save=lambda step, state, fresh: saved.append((step, [r["step"] for r in fresh])))
    assert trainer.level == fits and [r["step"] for r in records] == list(range(6))
    assert saved == [(2, [0, 1]), (4, [2, 3]), (6, [4, 5])]
    assert [r["loss"] for r in records] == pytest.approx([r["loss"] for r in expected], rel=1e-3)  # 1.3e-4 measured
    assert states_agree(plain, trainer)
    assert f"continues from step {1 if since == 0 else 3} at memory level 'checkpointing'" in caplog.text


def test_a_chosen_level_that_does_not_fit_is_an_error_with_a_remedy() -> None:
    trainer = unet_trainer(memory="checkpointing")
    short_of_memory(trainer, "low", since=3)
    with pytest.raises(
        UserError,
        match=r"3 pairs at once does not fit into memory at the level 'checkpointing'. Set memory to auto or stream",
    ):
        train_steps(trainer)
    done = unet_trainer(memory="checkpointing", steps=2, schedule="constant")
    train_steps(done)
    again = unet_trainer(memory="checkpointing", schedule="constant")
    short_of_memory(again, "low", since=3)
    with pytest.raises(UserError):
        train_steps(again)
    assert states_agree(done, again, 1e-6), "the last good state, that of step 2, stands"


def test_a_denoiser_without_known_blocks_trains_pair_by_pair() -> None:
    trainer = make_trainer(steps=4, batch_size=2)
    short_of_memory(trainer, "low")
    plain = make_trainer(steps=4, batch_size=2)
    assert [r["loss"] for r in train_steps(trainer)] == pytest.approx([r["loss"] for r in train_steps(plain)], rel=1e-4)
    assert trainer.level == "low"


def test_the_next_round_starts_at_the_level_that_fitted(tmp_path) -> None:
    model = FakeModel()
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2.0), seed=0)
    settings, inner, full = TrainSettings(steps=2, batch_size=2, warmup_steps=0), model.predict, []

    def predict(noised, times, cond):
        if torch.is_grad_enabled() and len(noised) > 2:
            full.append(len(noised))
            raise torch.OutOfMemoryError("out of memory")
        return inner(noised, times, cond)

    model.predict = predict
    with RunFolder(tmp_path / "run") as run:
        for number in range(2):
            train_round(run, number, model, adapter, make_data(), settings, seed=1)
        assert run.fact("memory") == "low" and full == [4], "only the first round had to find out"


def test_the_former_setting_name_is_accepted() -> None:
    assert TrainSettings.model_validate({"gradient_checkpointing": True}).memory == "checkpointing"
    assert TrainSettings.model_validate({"gradient_checkpointing": False}).memory == "auto"
    assert TrainSettings.model_validate({"gradient_checkpointing": True, "memory": "low"}).memory == "low"


def test_with_layers_a_block_is_replaced_by_its_transformer_layers() -> None:
    """An attention block is replaced by its two layers; a block without layers stays. None is nested."""
    root = nn.Module()
    root.down_blocks = nn.ModuleList([nn.Module()])
    attention, resnet = nn.Module(), nn.Linear(2, 2)
    attention.transformer_blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    root.down_blocks[0].attentions, root.down_blocks[0].resnets = nn.ModuleList([attention]), nn.ModuleList([resnet])
    name = "down_blocks.0.attentions.0"
    assert set(checkpointed_blocks(root)) == {name, "down_blocks.0.resnets.0"}
    assert set(checkpointed_blocks(root, layers=True)) == {f"{name}.transformer_blocks.{i}" for i in (0, 1)} | {
        "down_blocks.0.resnets.0"
    }
    flux = nn.Module()
    flux.transformer_blocks = nn.ModuleList([nn.Linear(2, 2)])
    assert list(checkpointed_blocks(flux, layers=True)) == ["transformer_blocks.0"]


# --- a model that only checkpointing can differentiate ---


def writes_in_place(trainer: Trainer) -> None:
    """A block that writes into what its norm has saved, as PixelDiT's blocks do."""
    norm = trainer.model.denoiser.mid_block.resnets[0].norm2
    norm.register_forward_hook(lambda _module, args, output: (args[0].add_(0.01), output)[1])


def test_auto_goes_to_checkpointing_where_blocks_write_in_place() -> None:
    trainer = unet_trainer()
    writes_in_place(trainer)
    records = train_steps(trainer)
    assert trainer.level == "checkpointing" and len(records) == 6
    same = unet_trainer(memory="checkpointing")
    writes_in_place(same)
    train_steps(same)
    assert states_agree(trainer, same, 1e-6)


def test_a_chosen_level_that_autograd_cannot_differentiate_is_refused() -> None:
    trainer = unet_trainer(memory="fast")
    writes_in_place(trainer)
    with pytest.raises(UserError, match="cannot be differentiated"):
        train_steps(trainer)
