"""The examination: which checks run in which process, and in which order."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..dpo_core.supported_hosts import version_in
from .comfyui_folder import find_comfyui, find_python, folder_finding
from .findings import FAILED, OK, Finding
from .launch import ProcessFailed, ask
from .options import FAMILIES, Options

FULL = ("sd15", "sdxl")
LIMITS = {"probe": 120, "check": 300, "full": 1800}
"""Time limits of the processes. Unit: seconds."""
_WORK = {"probe": "looking", "in_comfyui": "training", "in_diffusers": "training"}
"""By module: the name of the line that reports that its process failed."""
_DOING = {
    "probe": "looking at it",
    "in_comfyui": "starting ComfyUI, and training a model",
    "in_diffusers": "training a model",
}
Doing = Callable[[str], None]


class WrongOptions(ValueError):
    """Invalid options; the text says what is wrong and what to do."""


def check_options(options: Options) -> None:
    """Raises WrongOptions before anything is checked."""
    backend = "comfyui" if find_comfyui(options.comfyui)[0] else "diffusers"
    if options.family not in FAMILIES[backend]:
        where = "ComfyUI" if backend == "comfyui" else "diffusers"
        more = "" if backend == "comfyui" else "; for another one give a ComfyUI: --comfyui DIR"
        raise WrongOptions(
            f"family {options.family!r}: the tiny models for {where} are {', '.join(FAMILIES[backend])}{more}."
        )
    if options.json is not None and options.json.exists():
        raise WrongOptions(f"{options.json} exists and is not overwritten. Name another file with --json.")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        raise WrongOptions(f"the folder of {options.json} does not exist. Create it, or name another file with --json.")


def examine(options: Options, doing: Doing = lambda _: None) -> Iterator[tuple[str, Finding]]:
    """Yield (part of the report, line) as lines are found. Raises WrongOptions."""
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
                f"none was checked: {named_by}; the lines below are about the command line's backend, diffusers",
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
    if (device := probe.values.get("device")) is None:
        return
    device = "cpu" if "--cpu" in options.comfyui_args.split() else device
    request = {"comfyui": str(folder), "args": options.comfyui_args, "device": device}
    check = Asked(python, doing)
    yield from check.lines("In ComfyUI", "in_comfyui", {**request, "family": options.family}, LIMITS["check"])
    if options.full and (system := check.values.get("system")) is not None:
        yield from _full(python, "in_comfyui", ways_of(system, options.comfyui_args), request, doing)


def ways_of(system: str, given: str) -> dict[str, str]:
    """Names of the memory systems to measure, each with ComfyUI's switches for it.

    The one without dynamic VRAM is first: the other is compared with it.
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
    if (device := probe.values.get("device")) is None:
        return
    yield from Asked(sys.executable, doing).lines(
        "Training", "in_diffusers", {"family": options.family, "device": device}, LIMITS["check"]
    )
    if options.full:
        yield from _full(sys.executable, "in_diffusers", {"diffusers": ""}, {"device": device}, doing)


def _full(
    python: Path | str, module: str, ways: dict[str, str], request: dict[str, Any], doing: Doing
) -> Iterator[tuple[str, Finding]]:
    """Measure each full-size model in a folder of its own, and each memory system in a process of its own.

    Separate processes keep the memory figures apart.
    """
    for kind in FULL:
        with tempfile.TemporaryDirectory(prefix="dreambooth_dpo_doctor_") as folder:
            for way, switches in ways.items():
                asked = {**request, "args": switches, "full": kind, "way": way, "folder": folder}
                yield from Asked(python, doing).lines("Full size", module, asked, LIMITS["full"])


class Asked:
    """A check process: yields its findings as lines, and stores its other messages in `values`."""

    def __init__(self, python: Path | str, doing: Doing) -> None:
        self.python, self.doing, self.values = python, doing, {}

    def lines(self, part: str, module: str, request: dict[str, Any], limit: float) -> Iterator[tuple[str, Finding]]:
        """Yield the findings; a process that fails is reported as a failed line."""
        self.doing(f"{part}: {_DOING[module]}")
        try:
            for said in ask(self.python, module, request, limit):
                if said.kind == "finding":
                    yield PARTS.get(said.value["name"], part), Finding(**said.value)
                elif said.kind == "doing":
                    self.doing(said.value)
                else:
                    self.values[said.kind] = said.value
        except ProcessFailed as error:
            yield part, Finding(_WORK[module], FAILED, f"its process failed: {error}", error.remedy)


PARTS = {
    "toybox": "Scorers",
    "scorers": "Scorers",
    "scorer": "Scorers",
    "gradients": "Training",
    "training": "Training",
}
"""The part of the report that a line belongs to, by name, where it differs from that of its process."""


def report(options: Options, lines: list[tuple[str, Finding]], status: str) -> dict[str, Any]:
    """The report as JSON."""
    folder, _ = find_comfyui(options.comfyui)
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    return {
        "doctor": 1, "status": status, "options": asked, "comfyui": folder and version_in(folder),
        "lines": [{"part": part, **asdict(found)} for part, found in lines],
    }  # fmt: skip
