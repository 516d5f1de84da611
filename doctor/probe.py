"""Checks a Python before anything is trained in it: version, packages, PyTorch, device and free memory.

Runs in that Python.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from .findings import FAILED, OK, WARNING, Finding
from .launch import ROOT, say
from .packages import CORE, HEADLESS, package_finding

OLDEST_PYTHON = (3, 10)
OLDEST_TORCH = (2, 5)
LITTLE, TOO_LITTLE = 6e9, 1.5e9
"""Free memory below which training SD 1.5 does not fit, and below which the toybox does not. Unit: bytes."""


def answer(request: dict[str, Any]) -> None:
    """Run the checks of a request, and report findings. request: headless (bool).

    Also sends "device" (cuda, mps, xpu or cpu) if PyTorch can be imported.
    """
    headless = request["headless"]
    say("finding", python_finding(sys.version_info[:3], sys.executable))
    say("finding", package_finding({**CORE, **(HEADLESS if headless else {})}, sys.executable, ROOT, headless))
    try:
        import torch
    except Exception as error:  # a library that is missing or built for another CUDA may raise anything
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        remedy = (
            f'install a PyTorch for this machine: "{sys.executable}" -m pip install torch torchvision '
            "(https://pytorch.org)"
        )
        say("finding", Finding("PyTorch", FAILED, f"cannot be imported: {why}", remedy))
        return
    device = device_of(torch)
    say("finding", torch_finding(torch.__version__, built_for(torch.version), device))
    for found in memory_findings(torch, device):
        say("finding", found)
    say("device", device)


def python_finding(version: tuple[int, ...], path: str) -> Finding:
    text = ".".join(map(str, version))
    if tuple(version[:2]) < OLDEST_PYTHON:
        return Finding("Python", FAILED, f"{text} ({path}) is too old", "use Python 3.10 or newer")
    return Finding("Python", OK, f"{text}, {path}", data={"version": text, "platform": platform.platform()})


def device_of(torch: Any) -> str:
    """The kind of device that this PyTorch can train on."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "xpu" if hasattr(torch, "xpu") and torch.xpu.is_available() else "cpu"


def built_for(version: Any) -> str:
    """The platform of a PyTorch build (its torch.version): "CUDA 13.0", "ROCm 7.1" or "CPUs"."""
    for name, title in (("cuda", "CUDA"), ("hip", "ROCm"), ("xpu", "XPU")):
        if found := getattr(version, name, None):
            return f"{title} {found}"
    return "CPUs"


def torch_finding(version: str, built: str, device: str, driver: bool | None = None) -> Finding:
    """`built`: see `built_for`. `driver`: whether the machine has an NVIDIA driver; None: detect it."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:2])
    data = {"version": version, "built_for": built}
    if numbers < OLDEST_TORCH:
        return Finding(
            "PyTorch",
            FAILED,
            f"{version} is too old",
            "update it to 2.5 or newer, with the matching torchvision",
            data,
        )
    driver = shutil.which("nvidia-smi") is not None if driver is None else driver
    if device == "cpu" and driver:
        said = f"{version} sees no GPU, although this machine has an NVIDIA driver"
        return Finding(
            "PyTorch",
            WARNING,
            said,
            "install a PyTorch built for CUDA (https://pytorch.org), or update the driver",
            data,
        )
    return Finding("PyTorch", OK, f"{version}, built for {built}", data=data)


def memory_findings(torch: Any, device: str) -> list[Finding]:
    """The device with its free memory, and free main memory."""
    free, total = main_memory()
    main = memory_finding("main memory", "", free, total)
    if device == "cpu":
        name = processor()
        said = f"none that this PyTorch can use: training runs on the CPU ({name}, {torch.get_num_threads()} threads)"
        remedy = (
            "use a machine with a GPU for your own model: on a CPU a step of SD 1.5 takes a minute; the toybox needs "
            "no GPU"
        )
        return [
            Finding("GPU", WARNING, said, remedy, {"device": "cpu", "name": name, "threads": torch.get_num_threads()}),
            main,
        ]
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return [memory_finding("GPU", torch.cuda.get_device_name(), free, total), main]
    return [Finding("GPU", OK, f"{device}; its free memory is unknown", data={"device": device}), main]


def memory_finding(name: str, what: str, free: float | None, total: float | None) -> Finding:
    """Free memory in bytes compared with what training needs; None where the system does not report it."""
    if free is None or total is None:
        return Finding(name, OK, "unknown on this system")
    said = f"{f'{what}: ' if what else ''}{free / 1e9:.1f} GB free of {total / 1e9:.1f}"
    data = {"name": what, "free_bytes": int(free), "total_bytes": int(total)}
    remedy = "close other programs that use it (another ComfyUI, a browser, other models)"
    if free < TOO_LITTLE:
        return Finding(name, FAILED, f"{said}: too little to train", remedy, data)
    if free < LITTLE:
        smaller = "; it is enough for the toybox, and at best for SD 1.5 with memory: low and small pictures"
        return Finding(name, WARNING, f"{said}: little for training", remedy + smaller, data)
    return Finding(name, OK, said, data=data)


def main_memory() -> tuple[float | None, float | None]:
    """Free and total main memory in bytes; None where the system does not report them."""
    try:
        import psutil
    except ImportError:
        return _from_proc()
    found = psutil.virtual_memory()
    return float(found.available), float(found.total)


def _from_proc() -> tuple[float | None, float | None]:
    file = Path("/proc/meminfo")
    if not file.exists():
        return None, None
    kilobytes = dict(re.findall(r"(\w+):\s+(\d+) kB", file.read_text()))
    return 1024.0 * int(kilobytes["MemAvailable"]), 1024.0 * int(kilobytes["MemTotal"])


def processor() -> str:
    """The CPU's name."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", file.read_text()) if file.exists() else None
    return found[1] if found else platform.processor() or f"{os.cpu_count()} cores"
