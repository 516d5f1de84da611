"""Checks the pack in a ComfyUI that starts without its server, in a process of ComfyUI's own Python.

main.py is imported but not run: importing it reads the switches and sets up the memory system (dynamic VRAM is switched
on nowhere else).
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from .findings import FAILED, OK, Finding
from .full_size import SIDES, kind_of_device, lacking, measure
from .launch import ROOT, say
from .packages import installed
from .training_findings import guarded, self_check_findings

TINY_SIDE = 64
_QUIET = ("--disable-all-custom-nodes", "--disable-api-nodes")
"""Other packs are disabled, so that this one is tested on a bare ComfyUI."""


def answer(request: dict[str, Any]) -> None:
    """Run the checks of a request, and report findings.

    request: comfyui (folder), args (switches as one text), device, python, and either `family` of a tiny model, or
    `full`, the kind of a full-size one, with `folder` for its file and gradients and `way`, the memory system's name.
    """
    folder, device = Path(request["comfyui"]), request["device"]
    if not _started(folder, request["args"], device):
        return
    if (kind := request.get("full")) is not None:
        if (found := lacking(kind, device, Path(request["folder"]))) is not None:
            say("finding", found)
            return
        guarded("full size", lambda: _full(kind, device, Path(request["folder"]), request["way"]))
        return
    from .comfyui_folder import front_end_finding, pinned_front_end

    found = front_end_finding(installed("comfyui-frontend-package"), pinned_front_end(folder), sys.executable, folder)
    say("finding", found)
    for look in (_supported, _memory_system, _scorers):
        guarded("ComfyUI", look)
    guarded("training", lambda: _self_check(request["family"]))


def _started(folder: Path, switches: str, device: str) -> bool:
    """Import ComfyUI as its main.py does; report a failed line and return False if that is not possible."""
    given = shlex.split(switches)
    if device == "cpu" and "--cpu" not in given:
        given.append("--cpu")  # without it ComfyUI does not start on a machine without a GPU
    sys.argv = [str(folder / "main.py"), *_QUIET, *given]
    # The pack's own `nodes` must not be found before ComfyUI's.
    sys.path[:] = [str(folder), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    os.chdir(folder)
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        # cuda_malloc: main.py imports it before torch, but only where it is run.
        for module in ("comfy.cli_args", "cuda_malloc", "main"):
            importlib.import_module(module)
    except SystemExit as error:
        said = f"ComfyUI refuses its switches {shlex.join(sys.argv[1:])} (exit status {error.code})"
        say("finding", Finding("ComfyUI starts", FAILED, said, "correct --comfyui-args"))
        return False
    except Exception as error:  # its libraries raise ImportError, OSError, RuntimeError of a driver, ...
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        install = f'"{sys.executable}" -m pip install -r "{folder / "requirements.txt"}"'
        remedy = f"give the Python that ComfyUI runs in: --python PATH; if it is this one: {install}"
        say("finding", Finding("ComfyUI starts", FAILED, f"it cannot be imported: {why}", remedy))
        return False
    return True


def _supported() -> None:
    """Report whether this ComfyUI has every internal that the pack uses."""
    from ..dpo_core.backends.comfyui import host

    if why := host.refusal():
        said, _, remedy = why.rpartition(": ")
        say("finding", Finding("ComfyUI starts", FAILED, said, remedy))
        return
    said = "it starts, and has all internals that the pack uses"
    say("finding", Finding("ComfyUI starts", OK, said, data={"version": host.version()}))


def memory_finding(system: str, switches: dict[str, bool], device: str) -> Finding:
    """The memory system in words. switches: see host.memory_switches."""
    data = {"system": system, "switches": switches}
    names = ", ".join(name for name in switches if name != "--cpu")
    if system == "dynamic":
        said = (
            "dynamic VRAM: training loads the model a second time, as a whole, and drops it afterwards; one of "
            f"{names} turns it off"
        )
        return Finding("memory system", OK, said, data=data)
    given = [name for name, set_ in switches.items() if set_]
    if not switches:
        why = "this ComfyUI has no dynamic VRAM"
    elif given:
        why = f"dynamic VRAM is off by {', '.join(given)}"
    else:
        why = f"dynamic VRAM is on by default, but not on this device ({device}); {names} turn it off elsewhere"
    return Finding("memory system", OK, f"classic: models are loaded as a whole ({why})", data=data)


def _memory_system() -> None:
    from ..dpo_core.backends.comfyui import host

    say("finding", memory_finding(host.memory_system(), host.memory_switches(), str(host.device())))
    say("system", host.memory_system())


def _scorers() -> None:
    from ..nodes.host.scorer_files import roots
    from .scorer_files import scorer_findings, toybox_finding

    for found in (toybox_finding(), *scorer_findings(roots())):
        say("finding", found)


def _self_check(family: str) -> None:
    from .training_check import limit_of, tiny

    subject = tiny_subject(family)
    title = f"{'toybox' if family == 'toybox' else f'a tiny {family} model'} in ComfyUI, {subject.model.device}"
    for found in self_check_findings(title, list(tiny(subject)), limit_of(subject.model)):
        say("finding", found)


def tiny_subject(family: str) -> Any:
    """The native toybox, or a tiny MODEL of another family with random weights."""
    from ..dpo_core.backends.comfyui import ComfyTextToImage
    from ..dpo_core.backends.comfyui.random_models import TINY_TEXTS, RandomText, random_model
    from ..toybox.native import native_toybox

    if family == "toybox":
        return _subject(ComfyTextToImage(*native_toybox(), TINY_SIDE, TINY_SIDE))
    kind = "sd" if family == "sd15" else family
    backend = ComfyTextToImage(
        random_model(kind, "FLUX" if family == "flux" else "EPS"), None, None, TINY_SIDE, TINY_SIDE
    )
    backend.clip = RandomText(TINY_TEXTS[kind])
    return _subject(backend)


def _full(kind: str, device: str, folder: Path, way: str) -> None:
    from ..dpo_core.backends.comfyui import ComfyTextToImage, host
    from ..dpo_core.backends.comfyui.random_models import TEXTS, RandomText, write_denoiser

    file = folder / f"{kind}.safetensors"
    if not file.is_file():
        say("doing", f"{kind}: writing random weights")
        write_denoiser(kind, file)
    say("doing", f"{kind}: loading it")
    side = SIDES[kind_of_device(device)][kind]
    backend = ComfyTextToImage(host.checkpoint_model(file), None, None, side, side)
    backend.clip = RandomText(TEXTS[kind])
    measure(_subject(backend), kind, way, folder)


def _subject(backend: Any) -> Any:
    from ..dpo_core.backends.comfyui import diffusers_names
    from .training_check import PROMPTS, Subject

    backend.encode_texts(PROMPTS)
    return Subject(
        backend, lambda: backend.latent_shape, lambda: diffusers_names(backend.patcher.model), backend.kind == "flow"
    )
