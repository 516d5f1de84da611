"""Progress reports of the stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class Progress(Protocol):
    """Called as work is finished. It may raise to interrupt; the stage then stops and keeps what it has committed."""

    def __call__(
        self, stage: str, done: int, total: int, preview: np.ndarray | None = None, note: str = ""
    ) -> None: ...


def silent(stage: str, done: int, total: int, preview: np.ndarray | None = None, note: str = "") -> None:
    """A Progress that does nothing."""


class Pace:
    """The time left of a stage, from the pace since its first report: what was there before counts for nothing."""

    def __init__(self, now: float) -> None:
        self._start: float = now
        self._first: int | None = None

    def left(self, done: int, total: int, now: float) -> float | None:
        """Seconds left; None while the pace is unknown. A stage that starts again (done falls) is paced anew."""
        if self._first is None or done < self._first:
            self._start, self._first = now, done
        if done >= total:
            return 0.0
        if done == self._first or now <= self._start:
            return None
        return (now - self._start) / (done - self._first) * (total - done)


class Tenths:
    """Decides which reports of a stage a log shows: the first, each whole tenth, the last, and a new start."""

    def __init__(self) -> None:
        self._last: int | None = None

    def shows(self, done: int, total: int) -> bool:
        tenth = 10 * done // max(1, total)
        if self._last is not None and tenth == self._last:
            return False
        self._last = tenth
        return True


def duration(seconds: float) -> str:
    """ "8 s", "3 min", "2 h 05 min"."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
