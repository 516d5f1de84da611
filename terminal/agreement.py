"""The command `agreement`: how often scorers and pair rule agree with the decisions in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..dpo_core.errors import UserError
from .run_folders import existing_run

if TYPE_CHECKING:
    from ..dpo_core.pairs.agreement_of_run import Stored


def agreement(
    folder: Annotated[Path, typer.Argument(help="Run folder, in which Inspect Pairs stored decisions.")],
) -> None:
    """Say how often each scorer and the pair rule agree with your decisions, and what would agree better."""
    from ..dpo_core.pairs.agreement_of_run import agreement as measured
    from ..dpo_core.pairs.agreement_of_run import stored_decisions

    console = Console()
    with existing_run(folder) as run:
        found = stored_decisions(run)
        if not found:
            raise UserError(
                f"{folder} holds no decisions on pairs. Decide in the node Inspect Pairs, press Run there, and give "
                "the run's folder below ComfyUI's output/dreambooth_dpo."
            )
        for stored in found:
            lines = [_old(stored)] if stored.basis is None else measured(run, stored.edits, stored.basis).lines()
            for line in [_heading(stored), *lines]:
                console.print(line, soft_wrap=True, markup=False, highlight=False)


def _heading(stored: Stored) -> str:
    where = f"node {stored.node or '?'} of workflow {stored.workflow or '?'}"
    return f"Inspect Pairs, {where}" + (f", {stored.basis.set_name}:" if stored.basis else ":")


def _old(stored: Stored) -> str:
    return (
        f"{len(stored.edits.pairs)} decisions of an older version, which did not store the scorers. Press Run on that "
        "node once more."
    )
