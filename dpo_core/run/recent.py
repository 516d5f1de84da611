"""Keeps the images just written in memory until they are read once, since scoring follows sampling."""

from __future__ import annotations

import numpy as np

LIMIT = 256 * 2**20
"""Maximum size of the images kept. Unit: bytes; 340 images of 512 x 512."""


class RecentPictures:
    """The images written last, each handed out once; beyond `limit` bytes the oldest are dropped."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.bytes = limit, 0
        self._kept: dict[tuple[str, int], np.ndarray] = {}

    def put(self, set_name: str, position: int, pixels: np.ndarray) -> None:
        """Keep a copy of one image, uint8 [H, W, 3]."""
        self.take(set_name, position)
        self._kept[set_name, position] = np.array(pixels)
        self.bytes += pixels.nbytes
        while self.bytes > self.limit:
            self.take(*next(iter(self._kept)))

    def take(self, set_name: str, position: int) -> np.ndarray | None:
        """Hand out and drop an image, uint8 [H, W, 3]; None if it is not kept."""
        pixels = self._kept.pop((set_name, position), None)
        self.bytes -= 0 if pixels is None else pixels.nbytes
        return pixels
