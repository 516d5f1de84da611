"""The ComfyUI server of the tests, and its answers. Graphs for it: toy_graphs.py."""

from __future__ import annotations

from pathlib import Path

from dreambooth_dpo.benchmarks.common.comfyui_server import ROOT, Server, comfyui_path

__all__ = ["ROOT", "Server", "comfyui_path", "executed", "messages", "run_path"]


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
