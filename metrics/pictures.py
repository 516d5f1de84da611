"""Checks uint8 images and masks, and preprocesses images for a vision tower."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from .errors import MetricsError

RESIZE_MODES = ("shortest", "squash", "longest")
INTERPOLATIONS = ("bicubic", "bilinear")


def check_images(images: np.ndarray, what: str = "images") -> np.ndarray:
    """Return `images` if they are uint8 [n, H, W, 3] with H, W >= 1 (n may be 0); MetricsError otherwise."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        seen = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
        raise MetricsError(
            f"{what} is {seen}: scorers take one numpy array uint8 [n, height, width, 3], values 0..255."
        )
    if 0 in images.shape[1:3]:
        raise MetricsError(
            f"{what} has shape {list(images.shape)}: a picture needs at least one pixel in each direction."
        )
    return images


def check_masks(masks: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return `masks` if they are uint8 [n, H, W] of the images' size, each with a subject; MetricsError otherwise."""
    if not isinstance(masks, np.ndarray) or masks.dtype != np.uint8 or masks.shape != images.shape[:3]:
        seen = f"{masks.dtype} {list(masks.shape)}" if isinstance(masks, np.ndarray) else type(masks).__name__
        raise MetricsError(
            f"masks are {seen}: one numpy array uint8 {list(images.shape[:3])} is needed, one mask per photo, 255 = "
            "subject."
        )
    if len(empty := np.nonzero(masks.reshape(len(masks), -1).max(axis=1) < 128)[0]):
        raise MetricsError(
            f"mask {int(empty[0]) + 1} of {len(masks)} shows no subject (no pixel is white): paint the subject white."
        )
    return masks


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of a vision tower: size (height, width) in pixels, mean and std of the channels in 0..1.

    `resize_mode`: "shortest" (fit the shorter side, crop the longer around its centre), "squash" (ignore the aspect) or
    "longest" (fit the longer side, fill the rest with `fill`, 0..255). A square image is always seen whole: the margin
    that some recipes crop (resize to 256, keep 224) is kept, since the subject may reach into it. Raises MetricsError
    for invalid values.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: int = 0

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("resize_mode", self.resize_mode, RESIZE_MODES),
            ("interpolation", self.interpolation, INTERPOLATIONS),
        ):
            if value not in allowed:
                raise MetricsError(
                    f"{name} is {value!r} in the model's preprocessing settings: choose one of {allowed}."
                )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.size) < 1 or min(self.std) <= 0:
            raise MetricsError(
                f"the model's {self} is wrong: three means, three positive stds and a size above 0 are needed."
            )

    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """float32 [n, 3, *size] on the CPU, normalised, from uint8 [n, H, W, 3].

        Images that already have the size are not resampled.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
        if tuple(pixels.shape[2:]) != self.size:
            pixels = self._fit(pixels)
        mean, std = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std

    def _fit(self, pixels: torch.Tensor) -> torch.Tensor:
        """Resize with antialiasing, then crop or fill to `size`."""
        old, new = pixels.shape[2:], self.size
        ratios = [n / o for n, o in zip(new, old, strict=True)]
        if self.resize_mode == "shortest":
            ratios = [max(ratios)] * 2
        elif self.resize_mode == "longest":
            ratios = [min(ratios)] * 2
        target = [max(1, round(o * r)) for o, r in zip(old, ratios, strict=True)]
        if target != list(old):
            # Bicubic overshoots at edges. PIL clips to the image's range, and the towers were trained on its output.
            pixels = F.interpolate(
                pixels, size=target, mode=self.interpolation, antialias=True, align_corners=False
            ).clamp(0, 1)
        top, left = ((t - n) // 2 for t, n in zip(target, new, strict=True))
        pixels = pixels[..., max(top, 0) : max(top, 0) + new[0], max(left, 0) : max(left, 0) + new[1]]
        missing = [n - s for n, s in zip(new, pixels.shape[2:], strict=True)]
        if any(missing):
            sides = (missing[1] // 2, missing[1] - missing[1] // 2, missing[0] // 2, missing[0] - missing[0] // 2)
            pixels = F.pad(pixels, sides, value=self.fill / 255)
        return pixels
