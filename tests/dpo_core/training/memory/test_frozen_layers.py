"""Frozen layers keep less for backward: equal gradients bit for bit, fewer bytes, methods restored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from models import tiny_text_to_image
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.memory import frozen_layers as module
from dreambooth_dpo.dpo_core.training.memory.checkpointing import gradient_checkpointing
from dreambooth_dpo.dpo_core.training.memory.frozen_layers import lean
from dreambooth_dpo.dpo_core.training.memory.levels import at_level


@pytest.fixture(autouse=True)
def however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_BYTES", 0)


def frozen(part: nn.Module) -> nn.Module:
    return part.eval().requires_grad_(False)


def kept(call: Callable[[], torch.Tensor], weights: nn.Module) -> int:
    """Bytes that a forward keeps for backward, without weights and buffers of `weights`.

    A storage that is kept twice counts once.
    """
    own = {t.untyped_storage().data_ptr() for t in (*weights.parameters(), *weights.buffers())}
    found: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if (storage := tensor.untyped_storage()).data_ptr() not in own:
            found[storage.data_ptr()] = storage  # keep a reference, so that its address is not reused
        return tensor

    with saved_tensors_hooks(note, lambda t: t):
        call()
    return sum(s.nbytes() for s in found.values())


# --- what each layer keeps ---


def test_a_frozen_convolution_keeps_only_its_weight():
    conv, x = frozen(nn.Conv2d(3, 5, 3, stride=2, padding=1)), torch.randn(2, 3, 8, 8, requires_grad=True)
    assert kept(lambda: conv(x), conv) == 2 * 3 * 8 * 8 * 4
    with lean(conv):
        assert kept(lambda: conv(x), conv) == 0


def test_norm_and_silu_keep_only_the_norms_input():
    """Input: 16 channels of 8 x 8, two samples, float32: 8,192 bytes. Mean and deviation of 2 x 4 groups: 64.

    The output, which is not kept, is as large as the input.
    """
    net, x = frozen(nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU())), torch.randn(2, 16, 8, 8, requires_grad=True)
    assert kept(lambda: net(x), net) == 2 * 8192 + 64
    with lean(net):
        assert kept(lambda: net(x), net) == 8192 + 64


def test_geglu_keeps_only_the_projection():
    """Projection: 10 tokens of 2 x 32 numbers, 2,560 bytes. gelu(g) would be half as much."""
    from diffusers.models.activations import GEGLU

    net, x = frozen(GEGLU(16, 32)), torch.randn(10, 16, requires_grad=True)
    assert kept(lambda: net(x), net) == 2560 + 1280
    with lean(net):
        assert kept(lambda: net(x), net) == 2560


@pytest.mark.parametrize("name", ["conv", "norm", "geglu"])
def test_small_tensors_are_kept_as_usual(name, monkeypatch: pytest.MonkeyPatch):
    """The input has 2,048 bytes, and so have the outputs of norm and projection."""
    from diffusers.models.activations import GEGLU

    net, shape = {
        "conv": (nn.Conv2d(8, 8, 3), (1, 8, 8, 8)),
        "norm": (nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU()), (1, 8, 8, 8)),
        "geglu": (GEGLU(16, 16), (16, 16)),
    }[name]
    x = torch.randn(shape, requires_grad=True)
    plain = kept(lambda: frozen(net)(x), net)
    for worth, less in ((2048, True), (2049, False)):
        monkeypatch.setattr(module, "MIN_BYTES", worth)
        with lean(net):
            assert (kept(lambda: net(x), net) < plain) == less


# --- gradients ---


def gradients(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    for p in net.parameters():
        p.grad = None
    (net(x) ** 2).sum().backward()
    return [x.grad, *(p.grad for p in net.parameters() if p.grad is not None)]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, stride=2, padding=(0, 1), bias=False),
        nn.Conv2d(4, 8, 3, dilation=2, groups=2),
        nn.Conv2d(4, 6, 1),
        nn.Conv2d(4, 6, 3, padding="same"),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_a_convolutions_gradient_is_unchanged(conv):
    x = torch.randn(2, 4, 9, 9)
    plain = gradients(frozen(conv), x)
    with lean(conv):
        assert same(gradients(conv, x), plain)


def test_trainable_layers_still_get_gradients():
    net, x = (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 3, 3)),
        torch.randn(2, 3, 8, 8),
    )
    plain = gradients(net, x)
    with lean(net):
        assert same(gradients(net, x), plain) and len(plain) == 7
    net[3].requires_grad_(False)
    plain = gradients(net, x)
    with lean(net):
        assert same(gradients(net, x), plain) and len(plain) == 5


def test_an_in_place_silu_and_one_without_a_norm_are_unchanged():
    for net in (
        nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU(inplace=True)),
        nn.Sequential(nn.GroupNorm(2, 8), nn.Tanh(), nn.SiLU()),
        nn.Sequential(nn.Conv2d(8, 8, 1), nn.SiLU(), nn.SiLU()),
    ):
        x = torch.randn(2, 8, 4, 4)
        plain = gradients(frozen(net), x)
        with lean(net):
            assert same(gradients(net, x), plain)


def test_a_norm_whose_output_is_used_twice():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.act = nn.GroupNorm(2, 8), nn.SiLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(x)
            return self.act(y) * y + self.act(y)

    net, x = frozen(Two()), torch.randn(2, 8, 4, 4)
    plain = gradients(net, x)
    with lean(net):
        found = gradients(net, x)
    assert torch.allclose(found[0], plain[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("level", ["fast", "checkpointing", "low"])
def test_a_unets_gradients_are_the_same_at_every_level(targets, precision, level):
    model = tiny_text_to_image()
    if precision == "bf16":
        model = type(model)(model.pipe, "bf16")
    adapter = Adapter(model.denoiser, AdapterSettings(rank=4, alpha=4.0, targets=targets))
    for p in adapter.parameters():
        p.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    draws = torch.Generator().manual_seed(2)
    x, times = torch.randn(2, 4, 16, 16, generator=draws), torch.tensor([100, 700])
    cond = model.encode_prompts(["a sks robot", "a bear"])

    def trained(leanly: bool) -> tuple[list[torch.Tensor], int]:
        for p in adapter.parameters():
            p.grad = None
        blocks = gradient_checkpointing(model.denoiser, layers=level == "low") if level != "fast" else lean(nn.Module())
        with at_level(model.denoiser, level) if leanly else blocks, adapter.attached():
            size = kept(lambda: model.predict(x, times, cond), model.denoiser)
            model.predict(x, times, cond).square().mean().backward()
        return [p.grad.clone() for p in adapter.parameters()], size

    (plain, much), (found, little) = trained(False), trained(True)
    assert same(found, plain) and any(p.abs().max() > 0 for p in plain)
    assert little < 0.9 * much if level == "fast" else little <= much


# --- restoring ---


def methods(net: nn.Module) -> list[dict]:
    return [{k: v for k, v in m.__dict__.items() if k in ("forward", "_conv_forward")} for m in net.modules()]


def test_every_layers_methods_are_restored_also_after_an_error():
    net = frozen(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU()))
    own = net[1].forward = net[1].forward  # an instance attribute set before
    before = methods(net)
    with pytest.raises(KeyboardInterrupt), lean(net):
        assert methods(net) != before
        raise KeyboardInterrupt
    assert methods(net) == before and net[1].__dict__["forward"] is own


def test_without_gradients_nothing_changes_and_no_output_is_marked():
    net, x = frozen(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU())), torch.randn(2, 3, 8, 8)
    plain = net(x)
    with lean(net), torch.no_grad():
        assert torch.equal(net(x), plain)
        assert module._NORM_INPUT not in net[1](torch.randn(2, 8, 4, 4)).__dict__


def test_a_compiled_denoiser_and_an_old_torch_are_unchanged(monkeypatch: pytest.MonkeyPatch):
    net = frozen(nn.Sequential(nn.Conv2d(3, 8, 3)))
    before = methods(net)
    with at_level(net, "fast", compiled=True):
        assert methods(net) == before
    monkeypatch.delattr(torch, "get_autocast_dtype")
    with lean(net):
        assert methods(net) == before
