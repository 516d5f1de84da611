"""The gradient self-test: passes correct gradients, refuses wrong ones, and restores the adapter."""

from __future__ import annotations

import pytest
import torch
from models import tiny_text_to_image
from torch import nn

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training import gradient_check
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.gradient_check import check_gradient
from dreambooth_dpo.dpo_core.training.memory.checkpointing import gradient_checkpointing

PROMPTS = ("a sks robot on grass", "a bear in snow", "a sks bear")
LATENTS = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(3))


class Scaled(torch.autograd.Function):
    """Identity whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.factor * gradient, None


class Rotated(torch.autograd.Function):
    """Identity whose gradient gets random noise of a tenth of its size."""

    @staticmethod
    def forward(_ctx, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx, gradient: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(6))
        return gradient + 0.1 * gradient.square().mean().sqrt() * noise


@pytest.fixture
def model():
    return tiny_text_to_image()


def make_adapter(model, moved: bool = False, targets: str = "all") -> Adapter:
    adapter = Adapter(model.denoiser, AdapterSettings(rank=4, alpha=4.0, targets=targets))
    if moved:
        draws = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for weight in adapter.parameters():
                weight.add_(0.02 * torch.randn(weight.shape, generator=draws))
    return adapter


def check(model, adapter: Adapter, **others: object) -> float:
    with model.training():
        return check_gradient(model, adapter, model.encode_prompts(PROMPTS), LATENTS, **others)


def scale_gradient(block: nn.Module, factor: float) -> None:
    """Multiply the gradient that flows back through the output of this block by a factor."""
    block.register_forward_hook(lambda _module, _args, output: Scaled.apply(output, factor))


def bits(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {k: v.view(torch.int32) for k, v in adapter.state().items()}


def same_bits(adapter: Adapter, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(v, before[k]) for k, v in bits(adapter).items()) and all(
        p.grad is None for p in adapter.parameters()
    )


# --- correct gradients ---


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("targets", ["all", "attention"])
def test_a_correct_gradient_passes(model, moved: bool, targets: str, seed: int) -> None:
    adapter = make_adapter(model, moved, targets)
    before = bits(adapter)
    assert check(model, adapter, seed=seed) < 0.01
    assert same_bits(adapter, before)


def test_the_measured_error_is_the_same_under_checkpointing(model) -> None:
    adapter = make_adapter(model)
    plain = check(model, adapter)
    with gradient_checkpointing(model.denoiser):
        assert check(model, adapter) == pytest.approx(plain, abs=2e-3) and plain < 0.005


@pytest.mark.parametrize("weights", [False, True])
def test_low_precision_has_its_own_tolerance(weights: bool) -> None:
    """bf16 by autocast, or bf16 weights."""
    model = tiny_text_to_image(precision="fp32" if weights else "bf16")
    if weights:
        model.denoiser.to(torch.bfloat16)
        model.predict = lambda x, t, cond: model.denoiser(
            x.bfloat16(), t, cond["encoder_hidden_states"].bfloat16()
        ).sample.float()
    adapter = make_adapter(model)
    error = check(model, adapter)
    assert 1e-6 < error < 0.10
    with pytest.raises(UserError, match="limit 0.0%"):
        check(model, adapter, tolerance=0.0)


def test_passing_at_the_first_step_costs_three_forwards(model, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, predict = [], model.predict
    monkeypatch.setattr(
        model, "predict", lambda x, t, c: (sizes.append((len(x), torch.is_grad_enabled())), predict(x, t, c))[1]
    )
    check(model, make_adapter(model))
    assert sizes == [(2, True), (2, False), (2, False)]


def test_one_latent_is_enough_and_none_is_refused(model) -> None:
    adapter, cond = make_adapter(model), model.encode_prompts(PROMPTS)
    assert check_gradient(model, adapter, cond, LATENTS[:1]) < 0.02
    with pytest.raises(UserError, match="no latents"):
        check_gradient(model, adapter, cond, LATENTS[:0])


# --- wrong gradients ---


@pytest.mark.parametrize("factor", [1.094, 1 / 1.094])
def test_a_gradient_wrong_by_a_tenth_is_refused(model, factor: float) -> None:
    adapter = make_adapter(model, moved=True)
    scale_gradient(model.denoiser.up_blocks[-1].resnets[-1], factor)
    before = bits(adapter)
    with pytest.raises(
        UserError,
        match=r"UNet2DConditionModel failed.*differ by (8\.[3-9]|9\.\d)%.*limit 2\.0%.*PyTorch's attention or fp32",
    ):
        check(model, adapter)
    assert same_bits(adapter, before)


@pytest.mark.parametrize("seed", range(6))
def test_a_gradient_in_a_wrong_direction_is_refused(model, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Its derivative along itself is nearly correct; only the random part of the direction detects it."""
    model.denoiser.up_blocks[-1].resnets[-1].register_forward_hook(lambda _module, _args, output: Rotated.apply(output))
    adapter = make_adapter(model, moved=True)
    with pytest.raises(UserError, match="limit 2.0%"):
        check(model, adapter, seed=seed)
    monkeypatch.setattr(gradient_check, "FINE", gradient_check.PLAIN)
    assert check(model, adapter, seed=seed) < 0.02


def test_a_wrong_gradient_costs_two_retries(model, monkeypatch: pytest.MonkeyPatch) -> None:
    scale_gradient(model.denoiser.up_blocks[-1].resnets[-1], 1.094)
    calls, predict = [], model.predict
    monkeypatch.setattr(model, "predict", lambda *a: (calls.append(1), predict(*a))[1])
    with pytest.raises(UserError):
        check(model, make_adapter(model))
    assert len(calls) == 7


@pytest.mark.parametrize("lost", ["detached", "zeroed"])
def test_a_missing_gradient_is_refused(model, lost: str) -> None:
    adapter = make_adapter(model)
    model.denoiser.conv_out.register_forward_hook(
        lambda _module, _args, output: output.detach() if lost == "detached" else Scaled.apply(output, 0.0)
    )
    before = bits(adapter)
    with pytest.raises(UserError, match="UNet2DConditionModel.*is zero, so the adapter does not affect the output"):
        check(model, adapter)
    assert same_bits(adapter, before)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_gradient_that_is_not_finite_is_refused(model, where: str) -> None:
    adapter = make_adapter(model)
    model.denoiser.conv_out.register_forward_hook(
        lambda _module, _args, output: (
            output * float("nan") if where == "forward" else Scaled.apply(output, float("nan"))
        )
    )
    before = bits(adapter)
    with pytest.raises(UserError, match="norm nan, so this model cannot be trained"):
        check(model, adapter)
    assert same_bits(adapter, before)


def test_a_model_that_autograd_cannot_differentiate_is_refused(model) -> None:
    """An in-place write into a tensor that a layer has saved."""
    model.denoiser.conv_norm_out.register_forward_hook(lambda _module, args, output: (args[0].add_(1), output)[1])
    with pytest.raises(UserError, match=r"cannot be differentiated.*inplace operation.*gradient checkpointing"):
        check(model, make_adapter(model))


def test_weights_are_restored_when_a_forward_raises(model, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, calls, predict = make_adapter(model, moved=True), [], model.predict

    def interrupted(*args: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(*args)

    monkeypatch.setattr(model, "predict", interrupted)
    before = bits(adapter)
    with pytest.raises(KeyboardInterrupt):
        check(model, adapter)
    assert same_bits(adapter, before)
    assert not any(m._forward_hooks for m in model.denoiser.modules())


def test_layers_without_a_gradient_are_counted_in_the_log(model, caplog: pytest.LogCaptureFixture) -> None:
    """Two layers, of which the second has none: "1 of 2 adapted layers"; all or none say nothing."""
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2))
    names = list(adapter.policy)
    zeros = [torch.zeros(1) for _ in names]
    some = [torch.ones(1), *zeros[1:]]
    with caplog.at_level("INFO"):
        gradient_check._tell_unused(model, adapter, zeros)
        gradient_check._tell_unused(model, adapter, [torch.ones(1) for _ in names])
        assert not caplog.records
        gradient_check._tell_unused(model, adapter, some)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(f"{len(names) - 1} of {len(names)} adapted layers of ") and f"(first: {names[1]})" in said
