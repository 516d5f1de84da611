"""Turns trained levels, and errors in a process, into lines of the report."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from .findings import FAILED, OK, WARNING, Finding
from .launch import say


def self_check_findings(title: str, levels: list[Any], limit: float) -> list[Finding]:
    """Lines about a tiny model. levels: training_check.Level of every memory level, `fast` first."""
    from .training_check import difference

    if small := [level.name for level in levels if not level.fits]:
        said = f"{title}: the memory level {', '.join(small)} ran out of memory on a tiny model"
        remedy = "close other programs that use the device's memory, and run this again"
        return [Finding("training", FAILED, said, remedy)]
    apart = max(difference(levels[0].gradients, level.gradients) for level in levels)
    errors, seconds = [level.self_test for level in levels], [level.seconds for level in levels]
    data = {
        "model": title, "levels": [level.name for level in levels], "self_test": errors, "seconds_per_step": seconds,
        "largest_difference": None if apart == float("inf") else apart, "limit": limit,
    }  # fmt: skip
    tested = f"{title}: autograd agrees with finite differences to {max(errors):.2%} at every memory level"
    found = [Finding("gradients", OK, tested, data=data)]
    said = f"{title}: gradients of {', '.join(data['levels'])} are within {apart:.1e} of each other (limit {limit:.0e})"
    if apart > limit:
        remedy = (
            "train at the memory level fast, use PyTorch's attention, and report this line with the names of model "
            "and device"
        )
        return [*found, Finding("training", FAILED, said, remedy, data)]
    return [*found, Finding("training", OK, f"{said}; {', '.join(f'{s:.2f}' for s in seconds)} s a step", data=data)]


def full_finding(
    title: str, level: Any, to_first: float | None, limit: float, facts: dict[str, Any], smaller: bool
) -> Finding:
    """The line of one level of a full-size model.

    to_first: largest relative difference of its gradients from those of the first way and level; None for these.
    smaller: whether a smaller level is tried next.
    """
    data = {**facts, "level": level.name, "fits": level.fits}
    if not level.fits:
        said = f"{title}, {level.name}: does not fit into memory"
        if smaller:
            return Finding("full size", WARNING, said, "memory: auto continues at the next level by itself", data)
        remedy = "train on smaller pictures, close other programs that use the GPU, or use a larger GPU"
        return Finding("full size", FAILED, said, remedy, data)
    infinite = to_first == float("inf")
    data |= {
        "seconds_per_step": level.seconds,
        "cpu_seconds_per_step": level.cpu_seconds,
        "peak_bytes": level.peak,
        "difference": None if infinite else to_first,
        "limit": limit,
    }
    # On a busy machine a step's wall-clock time exceeds its CPU time.
    cpu = f" ({level.cpu_seconds:.1f} CPU seconds)" if facts.get("device") == "cpu" else ""
    said = f"{title}, {level.name}: {level.seconds:.2f} s a step{cpu}, peak {level.peak / 1e9:.1f} GB"
    if to_first is None:
        return Finding("full size", OK, said, data=data)
    said += f", gradients within {to_first:.1e} of the first level's"
    if to_first > limit:
        remedy = (
            f"train at another memory level than {level.name}, and report this line: gradients may differ by "
            f"{limit:.0e} at most"
        )
        return Finding("full size", FAILED, said, remedy, data)
    return Finding("full size", OK, said, data=data)


def guarded(name: str, work: Callable[[], Any]) -> Any:
    """Return the result of `work`; if it raises, report a failed line and return None.

    A UserError supplies its own remedy.
    """
    from ..dpo_core.errors import UserError

    try:
        return work()
    except UserError as error:
        text = " ".join(str(error).split())
        said, _, remedy = text.partition(". ")
        if not remedy:
            said, _, remedy = text.rpartition(": ")
        say("finding", Finding(name, FAILED, said or text, remedy or "see docs/doctor.md"))
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        last = traceback.extract_tb(error.__traceback__)[-1]
        full = type(error).__name__ in ("OutOfMemoryError", "MemoryError")
        remedy = (
            "close other programs that use memory, and run this again"
            if full
            else "report it, with the file that --json FILE writes"
        )
        data = {"traceback": traceback.format_exc()}
        say("finding", Finding(name, FAILED, f"{why} ({last.filename}:{last.lineno})", remedy, data))
    return None
