"""The tables of predicted and measured memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CHECK_COLUMNS = (
    "model", "weights", "px", "pairs", "level", "predicted GB", "live GB", "ratio", "RSS adds GB", "predicted adds",
)  # fmt: skip


def gigabytes(size: float | None) -> str:
    """GB of 1e9 bytes, with one decimal place."""
    return "" if size is None else f"{size / 1e9:.1f}"


def columns(levels: Sequence[str]) -> list[str]:
    return ["model", "weights", "px", "pairs", "weights GB", *levels, "sampling"]


def lines(rows: Sequence[Mapping[str, Any]], levels: Sequence[str]) -> list[list[str]]:
    """One line for each model, type of weights, side and number of pairs."""
    found: dict[tuple, dict[str, Mapping[str, Any]]] = {}
    sampling = {(r["model"], r["weights"], r["side"]): r["peak_bytes"] for r in rows if r["level"] == "sampling"}
    for row in rows:
        if row["level"] != "sampling":
            found.setdefault((row["model"], row["weights"], row["side"], row["pairs"]), {})[row["level"]] = row
    table = []
    for case, by_level in found.items():
        peaks = [gigabytes(by_level[level]["peak_bytes"] if level in by_level else None) for level in levels]
        weights = gigabytes(next(iter(by_level.values()))["weights_bytes"])
        table.append([*map(str, case), weights, *peaks, gigabytes(sampling.get(case[:3]))])
    return table


def check_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            row["model"], row["weights"], str(row["side"]), str(row["pairs"]), row["level"],
            f"{row['predicted_bytes'] / 1e9:.2f}", f"{row['live_bytes'] / 1e9:.2f}", f"{row['ratio']:.3f}",
            f"{row['resident_added'] / 1e9:.2f}", f"{row['predicted_added'] / 1e9:.2f}",
        ]
        for row in rows
    ]  # fmt: skip


def markdown(rows: Sequence[Mapping[str, Any]], levels: Sequence[str]) -> str:
    head = columns(levels)
    table = [head, ["---"] * len(head), *lines(rows, levels)]
    return "\n".join("| " + " | ".join(line) + " |" for line in table) + "\n"
