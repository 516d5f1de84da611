"""Protocols of the engine's parts: a text-to-image model and scorers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import numpy as np
import torch

Cond = dict[str, torch.Tensor]
"""Conditioning of n samples: tensors with first dimension n, named as the backend's denoiser takes them."""


@runtime_checkable
class Scorer(Protocol):
    """Maps images to one number each.

    A scorer may have a method `rest()`, called before the model draws or trains, after which it uses no memory on the
    accelerator until the next score. It may have `unscored`, a text: why a picture may have no score, as "no face or
    several faces". Its score of such a picture is NaN, which no other scorer may give. The picture is in no pair, and
    counts in no mean of this scorer. The first scorer of an axis and the judges score every picture.
    """

    name: str
    fingerprint: str
    """Hash of everything that a score depends on (weights, references, settings).

    A stored score is used only under the same fingerprint.
    """

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n] for uint8 images [n, H, W, 3] and the n prompts they were sampled from (identifier included)."""
        ...


class TextToImage(Protocol):
    """A text-to-image model whose denoiser can carry an adapter.

    All latents are in the denoiser's own (scaled) space. A model may have a method `memory_for_training()`: (bytes free
    for work beside the loaded weights, bytes of the device in all), called inside `training`; None where unknown.
    It may have `component`: diffusers' name of the denoiser, which LoRA files hold; without it "unet". It may have
    `at_lora_strength(factor)`, a context in which it draws with the user's LoRA at `factor` times its strength, and
    `fixed_strength`, why that cannot be ("" where it can); and `for_candidates()`, a context in which it draws with a
    LoRA for candidates alone.
    """

    fingerprint: str
    denoiser: torch.nn.Module
    device: torch.device
    precision: str
    """Compute precision of the forward, such as "fp32"."""
    merges_adapter: bool
    """Whether an adapter may be merged into the weights for sampling; else it acts through hooks."""
    whole: bool
    """Whether all weights are on the device inside `training`; else `predict` needs the memory level "stream"."""

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
        """Sample latents, float32 [n, C, h, w] on the CPU.

        Candidate i depends on prompts[i] and seeds[i] alone, not on the rest of the batch.
        """
        ...

    def pictures_at_once(self, settings: object, most: int) -> int | None:
        """Number of images, 1 to `most`, that fit in memory at once by the host's own estimate; None if it has none."""
        ...

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Images uint8 [n, H, W, 3] of latents [n, C, h, w]."""
        ...

    def encode_images(self, images: np.ndarray) -> torch.Tensor:
        """Latents float32 [n, C, h, w] of images uint8 [n, H, W, 3]."""
        ...

    def draw_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """`count` training timesteps, in the unit of `noised` and `predict`, uniform over the model's own table."""
        ...

    def times_at(self, levels: torch.Tensor) -> torch.Tensor:
        """Training timesteps [n] for noise levels [n] above 0 to 1, 1 being the most noise (see training/times.py)."""
        ...

    def noised(self, x0: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The noised latents and the regression target of the raw prediction, both [n, C, h, w]."""
        ...

    def training(self, stream: bool | None = False) -> AbstractContextManager:
        """Context in which `predict` is differentiable: the denoiser is loaded and frozen, and autograd records.

        `stream`: whether the weights of its blocks may stay in main memory, for the memory level "stream"; None: only
        where they do not fit onto the device. With False, raises UserError where they do not.
        """
        ...

    def predict(self, noised: torch.Tensor, times: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The denoiser's raw prediction [n, C, h, w], float32, differentiable in the adapter's weights."""
        ...
