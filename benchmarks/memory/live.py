"""The peak of live bytes of real training steps, by the counter that predictions use."""

from __future__ import annotations

import torch

from ...dpo_core.training.memory.levels import at_level
from ...dpo_core.training.memory.live_bytes import LiveBytes
from ...dpo_core.training.memory.stream import Mover
from ...dpo_core.training.trainer import Trainer


class Copying(Mover):
    """Stands for a device that is not main memory: what moves there is a copy."""

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().clone()


def live_peak(trainer: Trainer, level: str) -> int:
    """Peak of live bytes of two real steps on the CPU, with the copies of the state that training keeps.

    At the level "stream" the copies of weights count in place of the weights.
    """
    adapter, denoiser, count = trainer.adapter, trainer.model.denoiser, LiveBytes()
    trainer.level, trainer.mover = level, Copying("cpu")
    weights = [*denoiser.parameters(), *denoiser.buffers()]
    (count.ignore if level == "stream" else count.add)(weights)
    count.add(adapter.parameters())
    count.add(tensor for pair in adapter._frozen.values() for tensor in pair)
    with count:
        with at_level(denoiser, level, mover=trainer.mover), adapter.attached():
            trainer.advance(0)
            good = trainer.state()
            trainer.advance(1)
        newer = trainer.state()
    del good, newer
    return count.peak
