"""The ComfyUI server of the tests, and its answers. Graphs for it: toy_graphs.py."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from dreambooth_dpo.benchmarks.common import comfyui_server
from dreambooth_dpo.benchmarks.common.comfyui_server import ROOT, comfyui_path

__all__ = ["ROOT", "Server", "comfyui_path", "executed", "messages", "run_path"]

STARTS = Path("output") / "dreambooth_dpo" / "toybox"
"""Where Load Toybox stores the LoRAs of its personalizations, in a server's folder."""


def _kept(folder: Path) -> Path | None:
    """Where the processes of this test run share personalizations, so that none is trained twice: in pytest's folder of
    the run. None elsewhere.
    """
    run = next((p for p in folder.parents if re.fullmatch(r"pytest-\d+", p.name)), None)
    return run and run / "toybox_starts"


class Server(comfyui_server.Server):
    """A server that finds the toybox personalizations that an earlier server of the same test run trained."""

    def start(self, timeout: float = 300) -> None:
        if kept := _kept(self.folder):
            _copy(kept, self.folder / STARTS)
        super().start(timeout)

    def stop(self, kill: bool = False) -> None:
        super().stop(kill)
        if kept := _kept(self.folder):
            _copy(self.folder / STARTS, kept)


def _copy(source: Path, target: Path) -> None:
    """Copy LoRAs that `target` lacks; each appears whole."""
    for file in source.glob("concept_*_steps.safetensors"):
        if not (target / file.name).exists():
            target.mkdir(parents=True, exist_ok=True)
            part = target / f".{file.name}.{os.getpid()}"
            shutil.copy2(file, part)
            os.replace(part, target / file.name)


def executed(history: dict) -> set[str]:
    """Ids of the nodes that ran and were not cached."""
    cached = set(messages(history).get("execution_cached", {}).get("nodes", []))
    return {node for node in history["prompt"][2] if node not in cached}


def messages(history: dict) -> dict:
    """Messages of the server about a prompt, by kind, e.g. "execution_error"."""
    return dict((name, data) for name, data in history["status"]["messages"])


def run_path(server: Server, name: str) -> Path:
    """The folder of a run by its name."""
    return server.folder / "output" / "dreambooth_dpo" / name
