"""Gradient self-test: compares autograd with finite differences before a model is trained for the first time.

In-place writes of a host's blocks, attention kernels and casts can give wrong gradients without any error.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..errors import UserError
from ..protocols import Cond, TextToImage
from ..seeds import generator
from .adapter import Adapter


class NotDifferentiable(UserError):
    """Autograd cannot differentiate a model at this memory level: its blocks write in place, for instance."""


SAMPLES = 2
"""Largest number of latents in the loss of the self-test."""


class Probe(NamedTuple):
    """Step lengths, direction and tolerance of the finite difference, for one kind of forward precision."""

    steps: tuple[float, ...]
    """Step lengths, as the share of the loss that a step along the gradient should change: first try, then retries."""
    sideways: float
    """Size of the random part of the direction that is orthogonal to the gradient: standard deviation per weight.

    0: the direction is the gradient alone.
    """
    tolerance: float
    """Largest relative error that passes."""


FINE = Probe((5e-5, 2e-5, 1e-5), 3.0, 0.02)
"""Float32 on the CPU.

Steps can be so short that the loss is nearly linear along a random direction. Correct gradients of tiny SD UNets, Flux,
Chroma and SD3 measured below 0.6 % error. Gradients of a tiny Chroma under torch.utils.checkpoint, which are about 10 %
wrong, were refused in 12 of 12 draws; with the derivative along the gradient alone, 3 of the 12 passed.
"""
PLAIN = Probe((0.02, 0.005, 0.00125), 0.0, 0.02)
"""Float32 on devices that may compute it in fewer bits (TF32)."""
ROUGH = Probe((0.05, 0.2, 0.01), 0.0, 0.10)
"""Weights or forward below 32 bits: with short steps, rounding hides the difference.

Correct gradients of tiny SD UNets in bf16 were refused in 1 of 72 draws, and in 15 of 72 with the steps of PLAIN.
"""


def check_gradient(
    model: TextToImage,
    adapter: Adapter,
    cond: Cond,
    latents: torch.Tensor,
    seed: int = 0,
    tolerance: float | None = None,
) -> float:
    """Compare autograd's gradient of the adapter's `up` weights with a finite difference; returns the relative error.

    The loss is the mean squared error of the raw prediction for the first two of `latents` [n, C, h, w] (the denoiser's
    space) with `cond` of n samples, at times and noise drawn from `seed`. With g the gradient, the derivative of the
    loss along g / |g|, or along g / |g| plus any direction orthogonal to g, is |g|. It is measured as
    (loss(up + step) - loss(up - step)) / (2 step). Only `up` is tested: at B = 0 `down` has no gradient. Cost: one
    forward with backward and two without gradients; two more for each of at most two retries.

    In fp32 on the CPU the direction has a random part orthogonal to g, which exposes nearly any wrong gradient. In
    lower precision rounding hides that part, so it is left out; the test then detects only a gradient that is scaled,
    missing or largely wrong.

    Call it inside `model.training()` and outside `adapter.attached()`: it attaches the adapter itself and restores the
    weights bit for bit. Raises UserError when the error is above `tolerance` (None: 2 %, or 10 % below fp32), when the
    gradient is zero or not finite, and when autograd cannot differentiate the model.
    """
    probe = _probe(model)
    tolerance = probe.tolerance if tolerance is None else tolerance
    ups = [layer.up for layer in adapter.policy.values()]
    before = [up.detach().clone() for up in ups]
    with adapter.attached():
        loss_of = _loss(model, cond, latents, seed)
        loss, gradient = _gradient(model, loss_of, ups)
        _tell_unused(model, adapter, gradient)
        norm = math.sqrt(_dot(gradient, gradient))
        _check_finite_and_nonzero(model, loss, norm)
        direction = _direction(gradient, norm, probe.sideways, seed)
        error = math.inf
        try:
            for share in probe.steps:
                difference = _central_difference(loss_of, ups, before, direction, share * loss / norm)
                # A step may be too long (the loss is curved) or too short (rounding), so the best of several counts.
                # A wrong gradient is wrong at every step length.
                error = min(error, abs(norm / difference - 1) if difference else math.inf)
                if error <= tolerance:
                    return error
        finally:
            _set(ups, before)
    raise UserError(
        f"the gradient self-test of {type(model.denoiser).__name__} failed: autograd and finite differences differ by "
        f"{error:.1%} (limit {tolerance:.1%}), so this model would be trained with wrong gradients. "
        f"{_patched(model)}Use PyTorch's attention or fp32 precision, and report the model's name with this message."
    )


def _patched(model: TextToImage) -> str:
    """What to try first where other nodes have patched the model, by their names; else ""."""
    names = getattr(model, "patches", ())
    return f"The model is patched by {', '.join(names)}: train without. " if names else ""


def _probe(model: TextToImage) -> Probe:
    if model.precision != "fp32" or any(_compute_type(p).itemsize < 4 for p in model.denoiser.parameters()):
        return ROUGH
    return FINE if model.device.type == "cpu" else PLAIN


def _compute_type(weight: torch.Tensor) -> torch.dtype:
    """The dtype that a weight has, or that its layer computes in where bitsandbytes holds it in 4 bits."""
    return getattr(weight, "quant_state", weight).dtype


def _loss(model: TextToImage, cond: Cond, latents: torch.Tensor, seed: int) -> Callable[[], torch.Tensor]:
    """The loss as a function of the adapter's weights alone: samples, times and noise are fixed.

    Raises UserError when `latents` is empty.
    """
    x0 = latents[:SAMPLES].to(model.device)
    if len(x0) == 0:
        raise UserError("the gradient self-test got no latents. Pass one or two of the training samples.")
    draws = generator(seed, 3)
    times = model.draw_timesteps(len(x0), draws)
    noise = torch.randn(x0.shape, generator=draws).to(model.device)
    noised, target = model.noised(x0, noise, times)
    cond = {k: v[: len(x0)].to(model.device) for k, v in cond.items()}
    # In float64, so that rounding does not dominate the difference of two losses; on the CPU, since not every device
    # has float64.
    return lambda: (model.predict(noised, times, cond) - target).cpu().double().square().mean()


def _gradient(
    model: TextToImage, loss_of: Callable[[], torch.Tensor], ups: list[torch.Tensor]
) -> tuple[float, list[torch.Tensor]]:
    """The loss and its gradient, zeros for a weight that does not affect the loss.

    Raises NotDifferentiable when autograd cannot differentiate the model.
    """
    try:
        with torch.enable_grad():
            loss = loss_of()
            if not loss.requires_grad:
                return float(loss), [torch.zeros_like(up) for up in ups]
            gradients = torch.autograd.grad(loss, ups, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise NotDifferentiable(
            f"{type(model.denoiser).__name__} cannot be differentiated, so it cannot be trained: "
            f"{' '.join(str(error).split())[:300]} {_patched(model)}Use gradient checkpointing if its blocks write in "
            "place, PyTorch's attention, or another model, and report the model's name."
        ) from error
    filled = [torch.zeros_like(up) if g is None else g for g, up in zip(gradients, ups, strict=True)]
    return float(loss.detach()), filled


def _tell_unused(model: TextToImage, adapter: Adapter, gradient: list[torch.Tensor]) -> None:
    """Log the adapted layers that have no gradient, such as the unused text side of Qwen-Image's last block."""
    unused = [name for name, g in zip(adapter.policy, gradient, strict=True) if not g.any()]
    if unused and len(unused) < len(gradient):
        logging.info(
            "%d of %d adapted layers of %s have no gradient and will not be trained (first: %s)",
            len(unused),
            len(gradient),
            type(model.denoiser).__name__,
            unused[0],
        )


def _check_finite_and_nonzero(model: TextToImage, loss: float, norm: float) -> None:
    """Raises UserError when the loss or the gradient norm is not finite, or the norm is zero."""
    name = type(model.denoiser).__name__
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"the gradient self-test of {name} failed: the loss is {loss} and its gradient norm {norm}, so this model "
            "cannot be trained as it is. Use fp32 precision or PyTorch's attention, and report the model's name with "
            "this message."
        )
    if norm == 0:
        raise UserError(
            f"the gradient self-test of {name} failed: the gradient of the adapter's weights is zero, so the adapter "
            "does not affect the output and nothing would be trained. Choose other adapter targets or PyTorch's "
            "attention, and report the model's name."
        )


def _dot(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return sum(float((a * b).sum()) for a, b in zip(one, other, strict=True))


def _direction(gradient: list[torch.Tensor], norm: float, sideways: float, seed: int) -> list[torch.Tensor]:
    """g / |g| plus `sideways` times a standard normal draw that is made orthogonal to g."""
    along = [g / norm for g in gradient]
    if not sideways:
        return along
    draws = generator(seed, 4)
    drawn = [sideways * torch.randn(g.shape, generator=draws).to(g) for g in gradient]
    share = _dot(drawn, along)
    return [a + d - share * a for a, d in zip(along, drawn, strict=True)]


@torch.no_grad()
def _central_difference(
    loss_of: Callable[[], torch.Tensor],
    ups: list[torch.Tensor],
    middle: list[torch.Tensor],
    direction: list[torch.Tensor],
    step: float,
) -> float:
    """(loss(middle + step * direction) - loss(middle - step * direction)) / (2 step)."""
    losses = []
    for sign in (1, -1):
        _set(ups, [m + sign * step * d for m, d in zip(middle, direction, strict=True)])
        losses.append(float(loss_of()))
    return (losses[0] - losses[1]) / (2 * step)


@torch.no_grad()
def _set(weights: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
