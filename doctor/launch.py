"""Runs a module of this package in a process of its own, in any Python, and hands on what it says as it says it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_MARK = "\x1edoctor\x1e"
# The pack need not be installed in that Python: it is registered by its folder.
_PROGRAM = """
import importlib.util, json, sys
root, module, request = sys.argv[1:4]
del sys.argv[1:]
spec = importlib.util.spec_from_file_location("dreambooth_dpo", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["dreambooth_dpo"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["dreambooth_dpo"])
importlib.import_module("dreambooth_dpo.doctor." + module).answer(json.loads(request))
"""


class Ended(Exception):
    """The process did not come to its end.

    The text says how it ended, with its last words; `remedy` what can be done.
    """

    def __init__(self, said: str, remedy: str) -> None:
        super().__init__(said)
        self.remedy = remedy


@dataclass(frozen=True)
class Said:
    """`kind`: "finding", "doing" (what takes a while), or what the module and its caller agree on."""

    kind: str
    value: Any


def say(kind: str, value: Any) -> None:
    """In the process: hand a value (as JSON) to the one that launched it."""
    # Hosts put writers of their own into the place of sys.stdout.
    print(_MARK + json.dumps([kind, value]), file=sys.__stdout__, flush=True)


def ask(
    python: Path | str, module: str, request: dict[str, Any], limit: float = 300, folder: Path | None = None
) -> Iterator[Said]:
    """What `answer(request)` of the module says, run by `python` in `folder`.

    Raises Ended where the process crashes, cannot be started, or takes longer than `limit` seconds.
    """
    environment = {**os.environ, "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
    # OpenMP threads that wait by spinning take the cores from the ones that work.
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    # Linux' allocator keeps freed blocks below 32 MB for itself, and a peak would count them.
    environment.setdefault("MALLOC_MMAP_THRESHOLD_", "1000000")
    command = [str(python), "-c", _PROGRAM, str(ROOT), module, json.dumps(request)]
    piped = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "encoding": "utf-8",
        "errors": "replace",
    }
    try:
        process = subprocess.Popen(command, cwd=folder, env=environment, **piped)
    except OSError as error:
        raise Ended(
            f"{python} cannot be started: {error.strerror or error}", "name the Python that runs ComfyUI: --python PATH"
        ) from error
    late = threading.Event()
    watch = threading.Timer(limit, lambda: (late.set(), process.kill()))
    watch.start()
    last: deque[str] = deque(maxlen=200)
    try:
        for line in process.stdout:
            if _MARK in line:
                yield Said(*json.loads(line.rpartition(_MARK)[2]))
            elif line.strip():
                last.append(line.rstrip())
        if code := process.wait():
            raise _ended(code, late.is_set(), limit, last)
    finally:
        watch.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def _ended(code: int, late: bool, limit: float, last: deque[str]) -> Ended:
    words, report = last[-1] if last else "it said nothing", "report it, with the file that --json FILE writes"
    if late:
        remedy = "end what else keeps this machine busy, and run this again; if that is of no use, report it"
        return Ended(f"it took longer than {limit:.0f} s and was ended; its last line: {words}", remedy)
    if code == -9:
        remedy = "close what else uses the memory, and run this again"
        return Ended("it was ended by signal 9, which a system that runs out of memory sends", remedy)
    return Ended(
        f"it ended with {f'signal {-code}' if code < 0 else f'exit status {code}'}; its last line: {words}", report
    )
