"""What two equal runs must agree in."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path


def records(folder: Path) -> dict[str, object]:
    """All rows of each table of a run folder's records, sorted."""
    with sqlite3.connect(folder / "records.sqlite") as db:
        tables = ("candidates", "scores", "pairs", "training", "facts")
        return {table: sorted(db.execute(f"SELECT * FROM {table}").fetchall()) for table in tables}


def tensors(file: Path) -> dict[str, bytes]:
    """The bytes of each tensor of a .safetensors file."""
    from safetensors.torch import load_file

    return {k: v.numpy().tobytes() for k, v in load_file(file).items()}


def outcome(folder: Path) -> dict[str, object]:
    """All in which two equal runs must agree: the rows of every table, the tensors of adapters and LoRA, the report.

    A hidden `.<name>.part` file that a kill left behind is no result: nothing reads it.
    """
    files = [*sorted((folder / "states").glob("adapter_*.safetensors")), *sorted(folder.glob("[!.]*.safetensors"))]
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    return {**records(folder), **{file.name: tensors(file) for file in files}, "report": report}


def differences(mine: dict[str, object], theirs: dict[str, object]) -> list[str]:
    """Names of the parts in which two outcomes differ, bit for bit."""
    return sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))
