"""Whether a model's gradients were found right, once for each model, precision, memory level and set of trained layers
of a process.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..protocols import TextToImage
from .adapter import Adapter
from .dataset import PairData
from .gradient_check import check_gradient

_passed: WeakKeyDictionary[nn.Module, dict[tuple, float]] = WeakKeyDictionary()
"""By the denoiser itself, not by its class: variants of one class differ in their layers, patches and operators."""


def self_test(model: TextToImage, adapter: Adapter, data: PairData, level: str) -> float:
    """Relative error of the gradient for the first pair's winner (see check_gradient); one that passed before is only
    looked up.

    Call it inside `model.training()` and `levels.at_level(model.denoiser, level)`. Raises UserError where gradients are
    wrong, and torch.OutOfMemoryError where one sample does not fit at this level: then nothing counts as passed.
    """
    found = passed(model, adapter, level)
    if found is None:
        found = check_gradient(
            model, adapter, data.conditioning(torch.zeros(1, dtype=torch.int64), model.device), data.winners[:1]
        )
        _passed.setdefault(model.denoiser, {})[_key(model, adapter, level)] = found
    return found


def passed(model: TextToImage, adapter: Adapter, level: str) -> float | None:
    """The error with which this model passed at this level in this process; None where it has not."""
    return _passed.get(model.denoiser, {}).get(_key(model, adapter, level))


def _key(model: TextToImage, adapter: Adapter, level: str) -> tuple:
    return (model.fingerprint, model.device.type, model.precision, level, tuple(adapter.policy))
