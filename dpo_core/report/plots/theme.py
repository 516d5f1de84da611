"""The colours of all plots and image grids, on a light or a dark ground.

Nodes draw on dark, as they are; the report, the command line and the docs on light. Colours are told apart by
colour-blind eyes (Okabe and Ito's), and backed by shape or line style. On a dark ground they are lighter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Colours:
    """paper: the ground. ink, faint: text. mesh, rule: lines of the grid and between blocks. inside: text on a mark."""

    paper: str
    ink: str
    faint: str
    mesh: str
    rule: str
    inside: str
    blue: str
    vermillion: str
    green: str
    purple: str
    orange: str
    grey: str


LIGHT = Colours(
    paper="#FFFFFF", ink="#1D2430", faint="#565C66", mesh="#E6E8EC", rule="#D5D9DF", inside="#FFFFFF",
    blue="#0072B2", vermillion="#D55E00", green="#009E73", purple="#AA4499", orange="#E69F00", grey="#8A8F98",
)  # fmt: skip
DARK = Colours(
    paper="#1F2024", ink="#F0F1F3", faint="#B4BAC4", mesh="#3B3E46", rule="#4A4E57", inside="#101216",
    blue="#56B4E9", vermillion="#FF8A50", green="#3CCFA0", purple="#DD8FCF", orange="#F2B632", grey="#8F96A1",
)  # fmt: skip
THEMES = {"light": LIGHT, "dark": DARK}
_now: ContextVar[Colours] = ContextVar("colours", default=LIGHT)


def colours() -> Colours:
    """Those of the theme that is being drawn in."""
    return _now.get()


@contextmanager
def theme(name: Literal["light", "dark"]) -> Iterator[None]:
    """Plots and image grids made inside are drawn in this theme; outside they are light."""
    before = _now.set(THEMES[name])
    try:
        yield
    finally:
        _now.reset(before)
