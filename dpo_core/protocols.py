"""What the engine asks of its parts: a text-to-image model and scorers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import numpy as np
import torch

Cond = dict[str, torch.Tensor]
"""Conditioning of n samples: tensors whose first dimension is n, named as the backend's denoiser takes them."""


@runtime_checkable
class Scorer(Protocol):
    """Maps pictures to one number each.

    A scorer may have a method `rest()`, after which it takes no room on the accelerator until the next score: it is
    called before the model draws or trains.
    """

    name: str
    fingerprint: str
    """Hash of all that a score depends on (weights, references, settings); a kept score is used only under the same
    fingerprint.
    """

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n] for uint8 images [n, H, W, 3] and the n prompts they were sampled from (identifier included)."""
        ...


class TextToImage(Protocol):
    """A text-to-image model whose denoiser can carry an adapter.

    All latents are in the denoiser's own (scaled) space.
    """

    fingerprint: str
    denoiser: torch.nn.Module
    device: torch.device
    precision: str
    """ "fp32", or what the forward computes in."""
    merges_adapter: bool
    """Whether an adapter may be merged into the weights for sampling; else it acts by hooks."""

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        """Conditioning of n prompts, computed once per distinct prompt."""
        ...

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: object,
        on_step: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Latents float32 [n, C, h, w] on the CPU. Candidate i depends on prompts[i] and seeds[i] alone, whatever the
        batch.
        """
        ...

    def pictures_at_once(self, settings: object, most: int) -> int | None:
        """How many pictures, 1 to `most`, the host's own figures of memory let `sample` draw at once; None where it has
        none.
        """
        ...

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """uint8 pictures [n, H, W, 3] of latents [n, C, h, w]."""
        ...

    def encode_images(self, images: np.ndarray) -> torch.Tensor:
        """Latents float32 [n, C, h, w] of uint8 pictures [n, H, W, 3]."""
        ...

    def draw_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """`count` training times, in the unit of `noised` and `predict`."""
        ...

    def noised(self, x0: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The noised latents and the regression target of the raw prediction, both [n, C, h, w]."""
        ...

    def training(self) -> AbstractContextManager:
        """Inside, `predict` can be differentiated: the denoiser is loaded in full, frozen, and autograd records."""
        ...

    def predict(self, noised: torch.Tensor, times: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The denoiser's raw prediction [n, C, h, w], float32, differentiable in the adapter's weights."""
        ...
