"""The examination: which processes are asked what, and in which order."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..dpo_core.supported_hosts import version_in
from .comfyui_folder import find_comfyui, find_python, folder_finding
from .findings import FAILED, OK, Finding
from .launch import Ended, ask
from .options import FAMILIES, Options

FULL = ("sd15", "sdxl")
LIMITS = {"probe": 120, "check": 300, "full": 1800}
"""Seconds that a process may take."""
_WORK = {"probe": "looking", "in_comfyui": "training", "in_diffusers": "training"}
"""What a module's process is for: the name of the line that says that it did not come to its end."""
_DOING = {
    "probe": "looking at it",
    "in_comfyui": "starting ComfyUI, and training a model",
    "in_diffusers": "training a model",
}
Doing = Callable[[str], None]


class WrongOptions(ValueError):
    """What was asked cannot be done; the text says what is wrong and what would do."""


def check_options(options: Options) -> None:
    """Raises WrongOptions before anything is looked at."""
    backend = "comfyui" if find_comfyui(options.comfyui)[0] else "diffusers"
    if options.family not in FAMILIES[backend]:
        where = "ComfyUI" if backend == "comfyui" else "diffusers"
        more = "" if backend == "comfyui" else "; for another one name a ComfyUI: --comfyui DIR"
        raise WrongOptions(
            f"family {options.family!r}: the tiny models for {where} are {', '.join(FAMILIES[backend])}{more}."
        )
    if options.json is not None and options.json.exists():
        raise WrongOptions(f"{options.json} exists and is not overwritten. Name another file with --json.")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise WrongOptions(f"the folder of {options.json} does not exist. Make it, or name another file with --json.")


def examine(options: Options, doing: Doing = lambda _: None) -> Iterator[tuple[str, Finding]]:
    """(part of the report, line), as they are found. Raises WrongOptions."""
    check_options(options)
    folder, named_by = find_comfyui(options.comfyui)
    if folder is not None:
        yield from _comfyui(options, folder, named_by, doing)
    else:
        yield (
            "ComfyUI",
            Finding(
                "ComfyUI",
                OK,
                f"none was looked at: {named_by}; what follows is the command line's own backend, diffusers",
            ),
        )
        yield from _diffusers(options, doing)


def _comfyui(options: Options, folder: Path, named_by: str, doing: Doing) -> Iterator[tuple[str, Finding]]:
    found = folder_finding(folder, named_by)
    yield "ComfyUI", found
    if found.status == FAILED:
        return
    python, how = find_python(folder, options.python)
    if python is None:
        yield "ComfyUI", Finding("ComfyUI's Python", FAILED, how, "name the python of ComfyUI's venv: --python PATH")
        return
    yield "ComfyUI", Finding("ComfyUI's Python", OK, f"{python} ({how})", data={"python": str(python)})
    probe = Asked(python, doing)
    yield from probe.lines("Python", "probe", {"headless": False}, LIMITS["probe"])
    if (device := probe.told.get("device")) is None:
        return
    device = "cpu" if "--cpu" in options.comfyui_args.split() else device
    request = {"comfyui": str(folder), "args": options.comfyui_args, "device": device}
    check = Asked(python, doing)
    yield from check.lines("In ComfyUI", "in_comfyui", {**request, "family": options.family}, LIMITS["check"])
    if options.full and (system := check.told.get("system")) is not None:
        yield from _full(python, "in_comfyui", ways_of(system, options.comfyui_args), request, doing)


def ways_of(system: str, given: str) -> dict[str, str]:
    """Names of the memory systems to measure, and ComfyUI's switches for each.

    Plain is the first: the other one is compared with it.
    """
    if system != "dynamic":
        return {"ComfyUI's classic memory system": given}
    return {"without dynamic VRAM": f"{given} --disable-dynamic-vram".strip(), "with dynamic VRAM": given}


def _diffusers(options: Options, doing: Doing) -> Iterator[tuple[str, Finding]]:
    from .scorer_files import scorer_findings, toybox_finding

    probe = Asked(sys.executable, doing)
    yield from probe.lines("Python", "probe", {"headless": True}, LIMITS["probe"])
    for found in (toybox_finding(), *scorer_findings([])):
        yield "Scorers", found
    if (device := probe.told.get("device")) is None:
        return
    yield from Asked(sys.executable, doing).lines(
        "Training", "in_diffusers", {"family": options.family, "device": device}, LIMITS["check"]
    )
    if options.full:
        yield from _full(sys.executable, "in_diffusers", {"diffusers": ""}, {"device": device}, doing)


def _full(
    python: Path | str, module: str, ways: dict[str, str], request: dict[str, Any], doing: Doing
) -> Iterator[tuple[str, Finding]]:
    """Each model in a folder that goes with it, and each way in a process of its own: one's memory is not the other's."""
    for kind in FULL:
        with tempfile.TemporaryDirectory(prefix="dreambooth_dpo_doctor_") as folder:
            for way, switches in ways.items():
                asked = {**request, "args": switches, "full": kind, "way": way, "folder": folder}
                yield from Asked(python, doing).lines("Full size", module, asked, LIMITS["full"])


class Asked:
    """A process: its findings as lines, and in `told` what else it has said."""

    def __init__(self, python: Path | str, doing: Doing) -> None:
        self.python, self.doing, self.told = python, doing, {}

    def lines(self, part: str, module: str, request: dict[str, Any], limit: float) -> Iterator[tuple[str, Finding]]:
        """A process that does not come to its end is a failed line."""
        self.doing(f"{part}: {_DOING[module]}")
        try:
            for said in ask(self.python, module, request, limit):
                if said.kind == "finding":
                    yield PARTS.get(said.value["name"], part), Finding(**said.value)
                elif said.kind == "doing":
                    self.doing(said.value)
                else:
                    self.told[said.kind] = said.value
        except Ended as error:
            yield part, Finding(_WORK[module], FAILED, f"its process did not come to its end: {error}", error.remedy)


PARTS = {
    "toybox": "Scorers",
    "scorers": "Scorers",
    "scorer": "Scorers",
    "gradients": "Training",
    "training": "Training",
}
"""The part of the report that a line belongs to, where it is not the process's."""


def report(options: Options, lines: list[tuple[str, Finding]], status: str) -> dict[str, Any]:
    """As JSON."""
    folder, _ = find_comfyui(options.comfyui)
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    return {
        "doctor": 1, "status": status, "options": asked, "comfyui": folder and version_in(folder),
        "lines": [{"part": part, **found.as_dict()} for part, found in lines],
    }  # fmt: skip
