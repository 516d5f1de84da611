"""Helpers of the tests of host.py's contract."""

from __future__ import annotations

from dreambooth_dpo.dpo_core.backends.comfyui import host


def changed(what: str) -> str:
    """The message of a failed contract test."""
    return f"host.py, on {host.version()}: {what}"
