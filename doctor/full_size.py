"""SD 1.5 and SDXL of full size at every memory level: what is measured, in which sizes, and what it needs.

Of any backend.
"""

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
"""Pixels a side: those that the models are made for; on a CPU small ones, where a step takes seconds."""
MAIN_MEMORY = {"cpu": {"sd15": 8e9, "sdxl": 16e9}, "gpu": {"sd15": 6e9, "sdxl": 12e9}}
"""Bytes of main memory that must be free."""
DISK = {"sd15": 2e9, "sdxl": 5.5e9}
"""Bytes that the file of the denoiser takes."""
STEPS = {"cpu": 1, "gpu": 5}
"""Timed steps of each level."""
FIRST = "gradients.safetensors"


def kind_of_device(device: str) -> str:
    return "cpu" if device == "cpu" else "gpu"


def lacking(kind: str, device: str, folder: Path | None) -> Finding | None:
    """Why this model is left out, where main memory or the disk of `folder` (None: no file is written) is too full for
    it.
    """
    from .probe import main_memory

    needed, (free, _) = MAIN_MEMORY[kind_of_device(device)][kind], main_memory()
    remedy = "close what else uses it, and run this again"
    if free is not None and free < needed:
        said = f"{TITLES[kind]} is left out: it needs {needed / 1e9:.0f} GB of free main memory, and {free / 1e9:.1f} GB are free"
        return Finding("full size", WARNING, said, remedy)
    if folder is not None and (free := shutil.disk_usage(folder).free) < DISK[kind]:
        said = f"{TITLES[kind]} is left out: its file takes {DISK[kind] / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {folder}"
        return Finding("full size", WARNING, said, "free some, or set TMPDIR to a folder on another disk")
    return None


def measure(subject: Subject, kind: str, way: str, folder: Path) -> None:
    """Say a line for each memory level.

    The first way's `fast` gradients are kept in `folder`: all others are compared with them.
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
        say("finding", full_finding(title, level, apart, limit, facts, i + 1 < len(LEVELS)).as_dict())
        if i + 1 < len(LEVELS):
            say("doing", f"{title}: {LEVELS[i + 1]}")
