"""A new process in which ComfyUI's modules can be imported, on the CPU, for a part of a benchmark.

    python -m dreambooth_dpo.benchmarks.common.in_comfyui host.stock_sampler.sampling_cost '[32, 4, 12, 5]'

`measured` starts it with ComfyUI's folder in PYTHONPATH and in an empty working folder: in the pack's own folder
`import nodes` would import the pack's nodes instead of ComfyUI's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from typing import Any

from .comfyui_server import comfyui_path


class Quiet:
    """A NodeProgress that shows nothing, of a node outside DPO Rounds."""

    loop, stopped = None, False

    def __call__(self, *_: object, **__: object) -> None: ...

    def watch(self, _model: object) -> None:
        return None


def measured(function: str, *arguments: object) -> Any:
    """The result of a function of benchmarks/, named as folder.module.function, in a new process."""
    folder = comfyui_path()
    if not (folder / "main.py").is_file():
        raise SystemExit(f"no ComfyUI in {folder}: set COMFYUI_PATH to its folder.")
    path = os.pathsep.join(filter(None, [str(folder.resolve()), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", __name__, function, json.dumps(arguments)]
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=empty, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True  # read when comfy.model_management is imported
    module, _, function = sys.argv[1].rpartition(".")
    found = getattr(import_module(f"..{module}", __package__), function)(*json.loads(sys.argv[2]))
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
