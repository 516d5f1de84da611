"""Progress of the stages: bars in a terminal, lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from ..dpo_core.progress import Pace, Tenths, duration

_NOTE = 20
"""Least width of the notes' column; where less is left, notes are not shown. Unit: characters."""


@contextmanager
def bars(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable]:
    """A Progress that shows each stage: a bar with the time left, or lines where the output is no terminal."""
    if not console.is_terminal:
        yield _Lines(console, clock)
        return
    with Progress(*columns(console.width), console=console) as shown:
        yield _Bars(shown, console.width, clock)


def widths(width: int) -> dict[str, int]:
    """Widths of the columns stage, bar, count, left and note for a terminal's width; 0: not shown.

    The bar is the last to go, and no text may push it out: a note longer than its column is cut.
    """
    stage = max(8, min(28, width // 3))
    count, left = 11, 14 if width >= 50 else 0
    rest = width - stage - count - left - 4
    bar = max(4, min(40, rest if rest < 2 * _NOTE else rest // 2))
    note = rest - bar - 1
    return {"stage": stage, "bar": bar, "count": count, "left": left, "note": note if note >= _NOTE else 0}


def columns(width: int) -> list:
    """rich's columns for a terminal of this width."""
    of = widths(width)

    def text(template: str, name: str) -> TextColumn:
        column = Column(width=of[name], no_wrap=True, overflow="ellipsis")
        return TextColumn(template, table_column=column)

    shown = [text("{task.description}", "stage"), BarColumn(of["bar"])]
    shown += [text("{task.completed:.0f}/{task.total:.0f}", "count")]
    shown += [text("{task.fields[left]}", "left")] if of["left"] else []
    return shown + ([text("{task.fields[note]}", "note")] if of["note"] else [])


class _Bars:
    """A bar for each stage; a note that its column cuts is printed whole above the bars when the stage ends."""

    def __init__(self, shown: Progress, width: int, clock: Callable[[], float]) -> None:
        self._shown, self._room, self._clock = shown, widths(width)["note"], clock
        self._tasks: dict[str, int] = {}
        self._paces: dict[str, Pace] = {}

    def __call__(self, stage: str, done: int, total: int, preview: object = None, note: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._shown.add_task(escape(stage), total=total, note="", left="")
            self._paces[stage] = Pace(self._clock())
        left = self._paces[stage].left(done, total, self._clock())
        said = f"{duration(left)} left" if left else ""
        self._shown.update(self._tasks[stage], completed=done, total=total, note=escape(note), left=said)
        if done >= total and len(note) > self._room:
            self._shown.console.print(f"{escape(stage)}: {escape(note)}", highlight=False)


class _Lines:
    """A line for a stage's start, each tenth and its end, flushed at once."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console, self._clock = console, clock
        self._stages: dict[str, tuple[Tenths, Pace]] = {}

    def __call__(self, stage: str, done: int, total: int, preview: object = None, note: str = "") -> None:
        tenths, pace = self._stages.setdefault(stage, (Tenths(), Pace(self._clock())))
        left = pace.left(done, total, self._clock())
        if not tenths.shows(done, total):
            return
        parts = [f"{stage}: {done} of {total} ({100 * done // max(1, total)} %)"]
        parts += [f"{duration(left)} left"] if left else []
        line = ", ".join(parts) + (f"; {note}" if note else "")
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)
        self._console.file.flush()
