"""How stages tell what they are doing."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Progress(Protocol):
    """Called as work is finished; may raise to interrupt, and the stage then stops with what it has committed."""

    def __call__(
        self, stage: str, done: int, total: int, preview: np.ndarray | None = None, note: str = ""
    ) -> None: ...


def silent(stage: str, done: int, total: int, preview: np.ndarray | None = None, note: str = "") -> None:
    """Progress that says nothing."""
