"""Progress in terminals of every width, and in logs."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from dreambooth_dpo.dpo_core.progress import Pace, Tenths, duration
from dreambooth_dpo.terminal.bars import bars, widths

NOTE = "175 of 300 possible pairs were taken; 60 were below the margin, 40 outside the window, 25 used up. " * 2


class Clock:
    """Seconds since the start, moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Counting(io.StringIO):
    """A file that counts how often it was flushed."""

    flushed = 0

    def flush(self) -> None:
        self.flushed += 1
        super().flush()


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100, 120, 160, 250])
def test_the_columns_fit_and_the_bar_has_room(width: int) -> None:
    found = widths(width)
    assert found["bar"] >= 4
    shown = [w for w in found.values() if w]
    assert width < 40 or sum(shown) + len(shown) - 1 <= width


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_bars_stay_after_a_long_note(width: int) -> None:
    """The last picture of the bars has a bar of every stage, in one line each."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None, legacy_windows=False)
    with bars(console) as tell:
        tell("sample candidates_0", 5, 10)
        tell("pairs round_0", 175, 175, note=NOTE)
        tell("train round_0", 30, 60, note="loss 0.6931")
    last = [line for line in re.sub("\x1b\\[[?0-9]*[A-Za-z]", "", out.getvalue()).splitlines() if line.strip()][-3:]
    assert all(len(line.rstrip()) <= width for line in last)
    assert [line.split()[0] for line in last] == ["sample", "pairs", "train"], out.getvalue()[-800:]
    assert all("━" in line for line in last), last
    assert "25 used up" in " ".join(out.getvalue().split())  # the whole note, above the bars


def test_a_log_has_a_line_for_each_tenth_flushed_with_the_time_left() -> None:
    """100 pictures, one a second: at 50 there are 50 s left."""
    out, clock = Counting(), Clock()
    with bars(Console(file=out, width=80), clock) as tell:
        for done in range(101):
            clock.now = float(done)
            tell("sample x", done, 100)
        tell("pairs x", 7, 7, note=NOTE)
    lines = out.getvalue().splitlines()
    assert lines[0] == "sample x: 0 of 100 (0 %)"
    assert lines[5] == "sample x: 50 of 100 (50 %), 50 s left"
    assert lines[10] == "sample x: 100 of 100 (100 %)"
    assert lines[11].rstrip() == f"pairs x: 7 of 7 (100 %); {NOTE}".rstrip()
    assert len(lines) == 12 and out.flushed >= 12


def test_the_pace_counts_from_the_first_report() -> None:
    """A resumed stage starts at 60 of 100: 10 pictures in 20 s leave 30 * 2 s."""
    pace = Pace(0.0)
    assert pace.left(60, 100, 100.0) is None
    assert pace.left(70, 100, 120.0) == pytest.approx(60.0)
    assert pace.left(100, 100, 180.0) == 0.0
    assert pace.left(0, 100, 200.0) is None  # the stage starts again
    assert pace.left(50, 100, 210.0) == pytest.approx(10.0)


def test_tenths_of_a_short_stage_are_all_shown() -> None:
    tenths = Tenths()
    assert [tenths.shows(done, 3) for done in (0, 1, 2, 3, 3)] == [True, True, True, True, False]


@pytest.mark.parametrize(("seconds", "said"), [(7.6, "8 s"), (300, "5 min"), (7500, "2 h 05 min"), (-1, "0 s")])
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
