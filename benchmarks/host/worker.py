"""ComfyUI's modules in a benchmark's own process."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def comfyui() -> Path:
    path = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "ComfyUI")
    if not (path / "main.py").is_file():
        raise SystemExit(f"no ComfyUI at {path}: set COMFYUI_PATH to one.")
    return path


class Quiet:
    """A NodeProgress for which nobody looks."""

    def __call__(self, *_: object, **__: object) -> None: ...

    def watch(self, _model: object) -> None:
        return None


def open_comfyui() -> None:
    """Make ComfyUI's modules importable, on the CPU and deaf to this command's arguments."""
    # `python -m` from the pack's folder puts it first, where `import nodes` would find the pack's nodes.
    root = Path(__file__).parents[2]
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != root] + [str(comfyui())]
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
