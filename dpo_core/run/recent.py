"""Pictures that were just written, kept in memory until they are read: scoring follows sampling."""

from __future__ import annotations

import numpy as np

LIMIT = 256 * 2**20
"""Bytes of pictures that are kept: 340 of 512 x 512."""


class RecentPictures:
    """The last pictures written, each given out once; beyond `limit` bytes the oldest go."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.bytes = limit, 0
        self._kept: dict[tuple[str, int], np.ndarray] = {}

    def put(self, set_name: str, position: int, pixels: np.ndarray) -> None:
        """Keep a copy of one picture, uint8 [H, W, 3]."""
        self.take(set_name, position)
        self._kept[set_name, position] = np.array(pixels)
        self.bytes += pixels.nbytes
        while self.bytes > self.limit:
            self.take(*next(iter(self._kept)))

    def take(self, set_name: str, position: int) -> np.ndarray | None:
        """The picture, uint8 [H, W, 3], which is then no longer kept; None where it is not."""
        pixels = self._kept.pop((set_name, position), None)
        self.bytes -= 0 if pixels is None else pixels.nbytes
        return pixels
