"""Measures full-size SD 1.5 and SDXL at every memory level, on any backend."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .findings import WARNING, Finding
from .launch import say

if TYPE_CHECKING:
    from .training_check import Subject

TITLES = {"sd15": "SD 1.5", "sdxl": "SDXL"}
SIDES = {"cpu": {"sd15": 192, "sdxl": 128}, "gpu": {"sd15": 512, "sdxl": 1024}}
"""Image side. Unit: pixels. On a GPU the models' own sizes; on a CPU small ones, so that a step takes seconds."""
MAIN_MEMORY = {"cpu": {"sd15": 8e9, "sdxl": 16e9}, "gpu": {"sd15": 6e9, "sdxl": 12e9}}
"""Free main memory needed. Unit: bytes."""
DISK = {"sd15": 2e9, "sdxl": 5.5e9}
"""Size of the denoiser's file. Unit: bytes."""
STEPS = {"cpu": 1, "gpu": 5}
"""Timed steps at each level."""
FIRST = "gradients.safetensors"


def kind_of_device(device: str) -> str:
    return "cpu" if device == "cpu" else "gpu"


def lacking(kind: str, device: str, folder: Path | None) -> Finding | None:
    """A warning that this model is skipped, where main memory or the disk of `folder` has too little space; else None.

    folder: None where no file is written.
    """
    from .probe import main_memory

    needed, (free, _) = MAIN_MEMORY[kind_of_device(device)][kind], main_memory()
    remedy = "close other programs that use it, and run this again"
    if free is not None and free < needed:
        said = (
            f"{TITLES[kind]} is skipped: it needs {needed / 1e9:.0f} GB of free main memory, but only "
            f"{free / 1e9:.1f} GB are free"
        )
        return Finding("full size", WARNING, said, remedy)
    if folder is not None and (free := shutil.disk_usage(folder).free) < DISK[kind]:
        said = (
            f"{TITLES[kind]} is skipped: its file takes {DISK[kind] / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are "
            f"free in {folder}"
        )
        return Finding("full size", WARNING, said, "free disk space, or set TMPDIR to a folder on another disk")
    return None


def measure(subject: Subject, kind: str, way: str, folder: Path) -> None:
    """Report one line for each memory level.

    The gradients of the first way's level `fast` are stored in `folder`; all others are compared with them.
    """
    from safetensors.torch import load_file, save_file

    from ..dpo_core.training.memory.levels import LEVELS
    from .training_check import device_facts, difference, limit_of, train_levels
    from .training_findings import full_finding

    model, place = subject.model, kind_of_device(subject.model.device.type)
    side, limit, kept = SIDES[place][kind], limit_of(subject.model), folder / f"{kind}_{FIRST}"
    facts: dict[str, Any] = {
        "model": kind,
        "way": way,
        "pixels": side,
        "pairs": 1,
        "steps": STEPS[place],
        "precision": model.precision,
    }
    facts |= {
        "weights": str(next(model.denoiser.parameters()).dtype).removeprefix("torch."),
        **device_facts(model.device),
    }
    title = f"{TITLES[kind]}, {side} px, 1 pair, {facts['weights']}, {way}"
    say("doing", f"{title}: {LEVELS[0]}")
    for i, level in enumerate(train_levels(subject, STEPS[place], 1, test=False)):
        first = load_file(kept) if kept.is_file() else None
        apart = None if first is None or level.gradients is None else difference(first, level.gradients)
        if first is None and level.gradients is not None:
            save_file({name: g.contiguous() for name, g in level.gradients.items()}, kept)
        say("finding", full_finding(title, level, apart, limit, facts, i + 1 < len(LEVELS)))
        if i + 1 < len(LEVELS):
            say("doing", f"{title}: {LEVELS[i + 1]}")
