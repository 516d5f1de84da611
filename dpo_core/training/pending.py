"""Steps that are done and whose metrics are still on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import UserError


class TrainingStopped(UserError):
    """A guard stopped training. Raised by `train_steps`, the adapter holds the last saved state.

    `records`: the steps after that state, for the curves.
    """

    records: Sequence[dict] = ()


@dataclass(frozen=True)
class Pending:
    """A completed step whose metrics are still on the device: `numbers` is float32 [len(names)]."""

    step: int
    learning_rate: float
    names: tuple[str, ...]
    numbers: torch.Tensor


def fetch(steps: Sequence[Pending]) -> list[dict[str, float]]:
    """Records of completed steps, read with one copy from the device.

    Raises TrainingStopped, with the records before it, at the first step that is not finite.
    """
    records: list[dict[str, float]] = []
    for done, row in zip(steps, torch.stack([s.numbers for s in steps]).tolist(), strict=True):
        record = {"step": done.step, **dict(zip(done.names, row, strict=True)), "learning_rate": done.learning_rate}
        if not (math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"])):
            stop = TrainingStopped(
                f"the loss is {record['loss']} and the gradient norm {record['grad_norm']} at step {done.step}: "
                "training stopped, the last good adapter is kept. Lower the learning rate or beta, or use fp32."
            )
            stop.records = records
            raise stop
        records.append(record)
    return records
