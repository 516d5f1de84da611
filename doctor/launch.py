"""Runs a module of this package in a process of its own, in any Python, and passes on its messages as they come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_MARK = "\x1edoctor\x1e"
# The pack is imported by its folder, so it need not be installed in that Python.
_PROGRAM = """
import importlib.util, json, sys
root, module, request = sys.argv[1:4]
del sys.argv[1:]
door = root + "/__init__.py"
spec = importlib.util.spec_from_file_location("dreambooth_dpo", door, submodule_search_locations=[root])
sys.modules["dreambooth_dpo"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["dreambooth_dpo"])
importlib.import_module("dreambooth_dpo.doctor." + module).answer(json.loads(request))
"""


class ProcessFailed(Exception):
    """The process failed.

    The text says how it ended, with its last line of output; `remedy` says what to do.
    """

    def __init__(self, said: str, remedy: str) -> None:
        super().__init__(said)
        self.remedy = remedy


@dataclass(frozen=True)
class Said:
    """A message of the process.

    `kind`: "finding", "doing" (work that takes a while), or a kind agreed between module and caller.
    """

    kind: str
    value: Any


def say(kind: str, value: Any) -> None:
    """In the process: send a value (as JSON, dataclasses as dicts) to the process that launched it."""
    # sys.__stdout__, because hosts replace sys.stdout.
    print(_MARK + json.dumps([kind, value], default=asdict), file=sys.__stdout__, flush=True)


def ask(
    python: Path | str, module: str, request: dict[str, Any], limit: float = 300, folder: Path | None = None
) -> Iterator[Said]:
    """Yield the messages of the module's `answer(request)`, run by `python` in `folder`.

    Raises ProcessFailed if the process crashes, cannot be started, or takes longer than `limit` seconds.
    """
    environment = {**os.environ, "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
    # Spinning OpenMP threads would take the cores from working ones.
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    # Linux's allocator keeps freed blocks below 32 MB, which the measured peak would include.
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
        raise ProcessFailed(
            f"{python} cannot be started: {error.strerror or error}", "give the Python that runs ComfyUI: --python PATH"
        ) from error
    late = threading.Event()
    timer = threading.Timer(limit, lambda: (late.set(), process.kill()))
    timer.start()
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
        timer.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def _ended(code: int, late: bool, limit: float, last: deque[str]) -> ProcessFailed:
    words, report = last[-1] if last else "it printed nothing", "report it, with the file that --json FILE writes"
    if late:
        remedy = (
            "close other programs that keep this machine busy, and run this again; if that does not help, report it"
        )
        return ProcessFailed(f"it took longer than {limit:.0f} s and was ended; its last line: {words}", remedy)
    if code == -9:
        remedy = "close other programs that use memory, and run this again"
        return ProcessFailed("it was ended by signal 9, which a system that runs out of memory sends", remedy)
    return ProcessFailed(
        f"it ended with {f'signal {-code}' if code < 0 else f'exit status {code}'}; its last line: {words}", report
    )
