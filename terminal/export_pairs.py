"""The command `export-pairs`: a run's pairs as a data set for other trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .run_folders import existing_run


def export_pairs(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must be new or empty.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="diffusers: Parquet with jpg_0, jpg_1, label_0, caption. folders: winner/, loser/."
        ),
    ] = "diffusers",
    pairs: Annotated[
        list[str] | None, typer.Option(help="Lists of pairs by name [default: all rounds, or the nodes' last list].")
    ] = None,
) -> None:
    """Write the pairs of a run for other trainers, pictures as they are stored; nothing is overwritten."""
    from ..dpo_core.pairs.export import export_pairs as write

    with existing_run(folder) as run:
        count, lists = write(run, out, form, pairs or ())
    Console().print(f"{count} pairs of {', '.join(lists)}: {out}", soft_wrap=True, markup=False, highlight=False)
