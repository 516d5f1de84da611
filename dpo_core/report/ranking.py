"""A comparison of LoRAs as rows and lines of text: the same numbers on the terminal and on the node."""

from __future__ import annotations

from ..digits import NO_INTERVAL, interval_of
from ..evaluation.compare import WITHOUT, Comparison, Place

COLUMNS = ("", "LoRA", "fidelity", "alignment", "gain (SD)", "95 % interval", "guards")
LEVEL = "= cannot be told apart from the best one (*)"


def mark(place: Place, best: str) -> str:
    """ "*" for the best one, "=" for one that cannot be told apart from it, else ""."""
    return "*" if place.name == best else "=" if place.level else ""


def ranking_rows(found: Comparison, to: str = " .. ") -> list[tuple[str, ...]]:
    """The cells of `COLUMNS` for each place, in the order of rank."""
    rows = []
    for number, place in enumerate(found.places, 1):
        by, interval = interval_of(place.gain.mean, place.gain.low, place.gain.high, least=3, to=to)
        means = (f"{place.fidelity.mean:.3f}", f"{place.alignment.mean:.3f}")
        guards = "failed" if place.broken else "held"
        rows.append(
            (f"{number} {mark(place, found.best)}".strip(), place.name, *means, by, interval or NO_INTERVAL, guards)
        )
    return rows


def guard_lines(found: Comparison) -> list[str]:
    """A sentence for each failed guard."""
    return [f"{place.name}: {guard}." for place in found.places for guard in place.broken]


def ranking_text(found: Comparison, pictures: str) -> str:
    """The verdict, what was measured (`pictures`, a sentence), and a line for each place; proportional type."""
    lines = [found.words, pictures]
    for place, row in zip(found.places, ranking_rows(found, " to "), strict=True):
        rank, name, fidelity, alignment, by, interval, guards = row
        gain = "the model itself" if name == WITHOUT else f"gain {by} ({interval})"
        failed = "; a guard failed" if guards == "failed" else ""
        lines.append(f"{rank}  {name}: {gain}, fidelity {fidelity}, alignment {alignment}{failed}")
        if place.front and not place.broken:
            lines[-1] += "; on the Pareto front"
    lines += [LEVEL] if any(place.level for place in found.places) else []
    return "\n".join([*lines, *guard_lines(found)])
