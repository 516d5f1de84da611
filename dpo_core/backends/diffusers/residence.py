"""Which parts of a pipeline are on the GPU: what both ways of driving one share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...settings import SamplingSettings
from .devices import gpu_memory
from .identity import described_pipeline
from .strength import UserLoras


class Resident(UserLoras):
    """A pipeline whose parts other than the denoiser are on a GPU only while they work.

    `resting`: names of these parts. `_shelf`: where they are else; None without a GPU.
    """

    merges_adapter = True
    whole = True
    """The weights are on the device for sampling in any case; the memory level "stream" takes the blocks off."""
    pipe: Any
    device: torch.device
    resting: tuple[str, ...]
    _shelf: torch.device | None
    _weights: dict[str, str]

    def described_parts(self) -> dict[str, dict]:
        """Scheduler, tokenizers and models by part and setting, as plain JSON: what a resumed run must find again."""
        return described_pipeline(self.pipe, self._weights)

    def pictures_at_once(self, settings: SamplingSettings, most: int) -> None:
        """None: diffusers has no memory estimate, so the caller measures."""
        return None

    @contextmanager
    def training(self, stream: bool | None = False) -> Iterator[None]:
        """Inside, only the denoiser is on the GPU; the other parts return with the first call that needs them."""
        with torch.enable_grad():
            self.rest()
            yield

    def rest(self) -> None:
        """Move all parts but the denoiser off the GPU; they return with the first call that needs them."""
        if self._shelf is not None:
            for name in self.resting:
                getattr(self.pipe, name).to(self._shelf)

    def memory_for_training(self) -> tuple[float, float] | None:
        """(bytes free beside the loaded weights, bytes of the GPU in all); None without a GPU."""
        return gpu_memory(self.device)

    def _wake(self, part: torch.nn.Module) -> None:
        if self._shelf is not None:
            part.to(self.device)
