"""Gradient self-test, once per process for each model, device, precision, memory level and set of trained layers."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..protocols import TextToImage
from .adapter import Adapter
from .dataset import TrainingData
from .gradient_check import check_gradient

_passed: WeakKeyDictionary[nn.Module, dict[tuple, float]] = WeakKeyDictionary()
"""Relative errors of passed tests, by denoiser object: models of one class differ in layers, patches and operators."""


def self_test(model: TextToImage, adapter: Adapter, data: TrainingData, level: str) -> float:
    """Relative error of the gradient for the winner of the first pair (see `check_gradient`); passed tests are cached.

    Call it inside `model.training()` and `levels.at_level(model.denoiser, level)`. Raises UserError when gradients are
    wrong, and torch.OutOfMemoryError when one sample does not fit at this level; neither counts as passed.
    """
    error = passed(model, adapter, level)
    if error is None:
        error = check_gradient(
            model, adapter, data.conditioning(torch.zeros(1, dtype=torch.int64), model.device), data.first
        )
        _passed.setdefault(model.denoiser, {})[_key(model, adapter, level)] = error
    return error


def passed(model: TextToImage, adapter: Adapter, level: str) -> float | None:
    """Relative error of the test that this model passed at this level in this process; None if it has not."""
    return _passed.get(model.denoiser, {}).get(_key(model, adapter, level))


def _key(model: TextToImage, adapter: Adapter, level: str) -> tuple:
    return (model.fingerprint, model.device.type, model.precision, level, tuple(adapter.policy))
