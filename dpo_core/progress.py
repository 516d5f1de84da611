"""Progress reports of the stages."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Progress(Protocol):
    """Called as work is finished. It may raise to interrupt; the stage then stops and keeps what it has committed."""

    def __call__(
        self, stage: str, done: int, total: int, preview: np.ndarray | None = None, note: str = ""
    ) -> None: ...


def silent(stage: str, done: int, total: int, preview: np.ndarray | None = None, note: str = "") -> None:
    """A Progress that does nothing."""
