"""Prints the report on a terminal (with rich, if installed) or as plain lines in a log."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

from .findings import FAILED, OK, WARNING, Finding

_STYLES = {OK: "green", WARNING: "yellow", FAILED: "bold red"}
_WIDTHS = (9, 18)


class Shown:
    """`with Shown() as shown:` prints lines as they come; a terminal also shows the current work below them."""

    def __init__(self, rich: bool | None = None) -> None:
        self._console, self._status, self._part = None, nullcontext(), ""
        if rich is not False:
            try:
                from rich.console import Console
            except ImportError:
                return
            console = Console()
            if console.is_terminal:
                self._console, self._status = console, console.status("")

    def __enter__(self) -> Shown:
        self._status.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._status.__exit__(*error)

    def doing(self, text: str) -> None:
        """Show work that takes a while; only on a terminal."""
        if self._console is not None:
            from rich.markup import escape

            self._status.update(escape(text))

    def line(self, part: str, found: Finding) -> None:
        if part != self._part:
            self._part = part
            self._print(f"\n{part}", "bold")
        if self._console is None:
            self._print(f"{found.status:<{_WIDTHS[0]}}{found.name:<{_WIDTHS[1]}}{found.said}")
            if found.remedy:
                self._print(f"{'':<{sum(_WIDTHS)}}remedy: {found.remedy}")
            return
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid()
        grid.add_column(width=_WIDTHS[0])
        grid.add_column(width=_WIDTHS[1])
        grid.add_column(overflow="fold")
        grid.add_row(Text(found.status, _STYLES[found.status]), found.name, Text(found.said))
        if found.remedy:
            grid.add_row("", "", Text(f"remedy: {found.remedy}", "dim"))
        self._console.print(grid)

    def end(self, findings: list[Finding]) -> None:
        """Print the summary in one line."""
        failed, warned = (sum(f.status == status for f in findings) for status in (FAILED, WARNING))
        words = {0: "It will work here"}.get(failed, "It will not work here as it is")
        told = f"{len(findings) - failed - warned} ok, {_count(warned, 'warning')}, {failed} failed"
        self._print(f"\n{words}: {told}.", "bold")

    def _print(self, text: str, style: str = "") -> None:
        if self._console is None:
            print(text, file=sys.stdout, flush=True)
        else:
            self._console.print(text, style=style, markup=False, highlight=False)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
