"""A self-test of gradients: autograd against finite differences, before an architecture is trained for the first time.

Hosts' blocks write in place, and attention kernels and casts differ; some of it gives wrong gradients without a word.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..errors import UserError
from ..protocols import Cond, TextToImage
from ..seeds import generator
from .adapter import Adapter

SAMPLES = 2
"""Latents that the loss is taken over, at most."""


class Probe(NamedTuple):
    """How to measure where a forward rounds as it does."""

    steps: tuple[float, ...]
    """Shares of the loss that a step along the gradient should change it by: the first, and the retries."""
    sideways: float
    """Standard deviations, in every weight, of a random part of the direction at right angles to the gradient."""
    tolerance: float
    """Relative error let through."""


FINE = Probe((5e-5, 2e-5, 1e-5), 3.0, 0.02)
"""Float32 on the CPU: exact enough for steps so short that the loss does not bend along a random direction. Right
gradients of tiny SD UNets, Flux, Chroma and SD3 read below 0.6 %. Gradients of a tiny Chroma under
torch.utils.checkpoint, which are about 10 % wrong, were refused in 12 of 12 draws; the derivative along the gradient
alone let 3 of them pass."""
PLAIN = Probe((0.02, 0.005, 0.00125), 0.0, 0.02)
"""Float32 on devices that may shorten it (TF32)."""
ROUGH = Probe((0.05, 0.2, 0.01), 0.0, 0.10)
"""Fewer than 32 bits a weight, or a forward that computes in fewer: short steps drown in rounding. Right gradients of
tiny SD UNets in bf16 were refused in 1 of 72 draws, and in 15 of 72 with the steps of PLAIN."""


def check_gradient(
    model: TextToImage,
    adapter: Adapter,
    cond: Cond,
    latents: torch.Tensor,
    seed: int = 0,
    tolerance: float | None = None,
) -> float:
    """Relative error of autograd's gradient g of the adapter's `up` weights: |g| against a finite difference along g /
    |g|.

    The loss is the mean squared error of the raw prediction for the first two of `latents` [n, C, h, w] (the denoiser's
    space) with `cond` of n samples, at times and noise drawn from `seed`. Its derivative along g / |g|, and along g /
    |g| plus anything at right angles to g, is |g|; measured, (loss(up + step) - loss(up - step)) / (2 step). Of `up`
    alone: at B = 0 `down` has no gradient. One forward with backward and two without grad; two more for each of at most
    two retries.

    In fp32 on the CPU the direction has a random part at right angles to g, so that nearly any wrong gradient shows.
    Elsewhere rounding drowns it: there an error of g at right angles to g is not seen, only a gradient that is scaled,
    lost or wrong in a large share.

    Call it inside `model.training()`, outside `adapter.attached()`: it attaches the adapter itself, and leaves its
    weights as they were, bit for bit. Raises UserError when the error is above `tolerance` (2 %; 10 % below fp32), when
    the gradient is zero or not finite, and when autograd cannot differentiate the model.
    """
    probe = _probe(model)
    tolerance = probe.tolerance if tolerance is None else tolerance
    ups = [layer.up for layer in adapter.policy.values()]
    before = [up.detach().clone() for up in ups]
    with adapter.attached():
        loss_of = _loss(model, cond, latents, seed)
        loss, gradient = _gradient(model, loss_of, ups)
        norm = math.sqrt(_dot(gradient, gradient))
        _refuse_useless(model, loss, norm)
        direction = _direction(gradient, norm, probe.sideways, seed)
        error = math.inf
        try:
            for share in probe.steps:
                difference = _central_difference(loss_of, ups, before, direction, share * loss / norm)
                # A step may be too long for a bent loss or too short for its rounding; a wrong gradient is wrong at
                # every length.
                error = min(error, abs(norm / difference - 1) if difference else math.inf)
                if error <= tolerance:
                    return error
        finally:
            _set(ups, before)
    raise UserError(
        f"the gradient self-test of {type(model.denoiser).__name__} failed: autograd and finite differences differ by {error:.1%} "
        f"(limit {tolerance:.1%}), so training would go wrong on this model. Use PyTorch's attention or fp32 precision, turn off what "
        "else patches the model, and report the model's name with this message."
    )


def _probe(model: TextToImage) -> Probe:
    if model.precision != "fp32" or any(p.element_size() < 4 for p in model.denoiser.parameters()):
        return ROUGH
    return FINE if model.device.type == "cpu" else PLAIN


def _loss(model: TextToImage, cond: Cond, latents: torch.Tensor, seed: int) -> Callable[[], torch.Tensor]:
    """The loss as a function of the adapter's weights alone: samples, times and noise are fixed."""
    x0 = latents[:SAMPLES].to(model.device)
    if len(x0) == 0:
        raise UserError("the gradient self-test got no latents. Give it one or two of the samples to train on.")
    draws = generator(seed, 3)
    times = model.draw_timesteps(len(x0), draws)
    noise = torch.randn(x0.shape, generator=draws).to(model.device)
    noised, target = model.noised(x0, noise, times)
    cond = {k: v[: len(x0)].to(model.device) for k, v in cond.items()}
    # In float64, of which not every device has any: the difference of two losses should not be of their rounding.
    return lambda: (model.predict(noised, times, cond) - target).cpu().double().square().mean()


def _gradient(
    model: TextToImage, loss_of: Callable[[], torch.Tensor], ups: list[torch.Tensor]
) -> tuple[float, list[torch.Tensor]]:
    """The loss and its gradient; zeros where a weight is not reached."""
    try:
        with torch.enable_grad():
            loss = loss_of()
            if not loss.requires_grad:
                return float(loss), [torch.zeros_like(up) for up in ups]
            found = torch.autograd.grad(loss, ups, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserError(
            f"{type(model.denoiser).__name__} cannot be differentiated, so it cannot be trained: {' '.join(str(error).split())[:300]} "
            "Use gradient checkpointing where blocks write in place, PyTorch's attention, or another model; and report the model's name."
        ) from error
    return float(loss.detach()), [torch.zeros_like(up) if g is None else g for g, up in zip(found, ups, strict=True)]


def _refuse_useless(model: TextToImage, loss: float, norm: float) -> None:
    name = type(model.denoiser).__name__
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"the gradient self-test of {name} failed: the loss is {loss} and its gradient's norm {norm}, so training would go wrong on "
            "this model. Use fp32 precision, or PyTorch's attention, and report the model's name with this message."
        )
    if norm == 0:
        raise UserError(
            f"the gradient self-test of {name} failed: the gradient of the adapter's weights is zero, so nothing would train on this "
            "model: the adapter is not reached. Choose other adapter targets, or PyTorch's attention, and report the model's name."
        )


def _dot(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return sum(float((a * b).sum()) for a, b in zip(one, other, strict=True))


def _direction(gradient: list[torch.Tensor], norm: float, sideways: float, seed: int) -> list[torch.Tensor]:
    """g / |g|, plus a normal draw times `sideways` from which its part along g is taken out."""
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
    losses = []
    for sign in (1, -1):
        _set(ups, [m + sign * step * d for m, d in zip(middle, direction, strict=True)])
        losses.append(float(loss_of()))
    return (losses[0] - losses[1]) / (2 * step)


@torch.no_grad()
def _set(weights: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
