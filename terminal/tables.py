"""The answers of the commands as tables and sentences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..dpo_core.digits import NO_INTERVAL, interval_of

if TYPE_CHECKING:
    from ..dpo_core.evaluation.compare import Comparison


def show_answer(console: Console, report: dict, lora: Path, page: Path) -> None:
    """Print the answer, then the numbers behind it, then the paths of the files."""
    from ..dpo_core.report.words import levels, moved

    console.print()
    console.print(f"[bold]{escape(report['answer'])}[/]")
    table = Table(
        "score", "before", "after", "gain", "95 % interval", "", title="Held-out prompts, same seeds before and after"
    )
    for name, value in report.items():
        if isinstance(value, dict) and "ci95" in value:
            gain, interval = moved(value, " .. ")
            table.add_row(name, *levels(value), gain, interval or NO_INTERVAL, value["verdict"])
    console.print(table)
    if sweep := report.get("strength"):
        console.print(escape(sweep["words"]))
    for sentence in report.get("distrust", []):
        console.print(f"[dim]Caution: {escape(sentence)}[/]")
    console.print(f"LoRA:   {lora}\nReport: {page}", soft_wrap=True, markup=False, highlight=False)


def show_sweep(console: Console, found: dict) -> None:
    """Print the numbers of each strength, with a star at the recommended one, and the recommendation in words."""
    title = "Held-out prompts, same seeds at every strength"
    table = Table("strength", "fidelity", "alignment", "gain (SD)", "95 % interval", "guards", title=title)
    for point in found["points"]:
        gain = point["gain"]
        by, interval = interval_of(gain["mean"], gain["low"], gain["high"], least=3, to=" .. ")
        mark = " *" if point["strength"] == found["value"] else ""
        means = [f"{point[name]['mean']:.3f}" for name in ("fidelity", "alignment")]
        failed = "failed" if point["broken"] else "held"
        table.add_row(f"{point['strength']:g}{mark}", *means, by, interval or NO_INTERVAL, failed)
    console.print(table)
    for point in found["points"]:
        for guard in point["broken"]:
            console.print(f"At strength {point['strength']:g}: {escape(guard)}.")
    console.print(f"[bold]{escape(found['words'])}[/]")


def show_comparison(console: Console, found: Comparison) -> None:
    """Print the ranking of LoRAs, with a star at the best one, and what it means in words."""
    from ..dpo_core.report.ranking import COLUMNS, LEVEL, guard_lines, ranking_rows

    table = Table(*COLUMNS, title="Ranking")
    for row in ranking_rows(found):
        table.add_row(*map(escape, row))
    console.print(table)
    if any(place.level for place in found.places):
        console.print(LEVEL)
    for line in guard_lines(found):
        console.print(escape(line))
    console.print(f"[bold]{escape(found.words)}[/]")
