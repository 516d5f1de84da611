"""What the tests of host.py's contract share."""

from __future__ import annotations

from dreambooth_dpo.dpo_core.backends.comfyui import host


def changed(what: str) -> str:
    """The message of a contract that a host breaks."""
    return f"host.py, on {host.version()}: {what}"
