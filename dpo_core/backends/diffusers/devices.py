"""Devices: a name becomes a device that was tried, or a message in one sentence."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ...errors import UserError

if TYPE_CHECKING:
    import torch

    from ...crew import Crew

KINDS = ("cpu", "cuda", "mps", "xpu")


def pick_device(name: str) -> str:
    """Resolve a device name: "auto" -> cuda, mps or cpu, whichever the machine has.

    Any other device is tried with one small product. Raises UserError for one that is unknown or not available.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        with warnings.catch_warnings():  # torch warns of names that it is about to drop
            warnings.simplefilter("ignore")
            device = torch.device(name)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"device {name!r} is unknown. Use auto, cpu, cuda, cuda:1 or mps.") from error
    if device.type not in KINDS:
        raise UserError(f"device {name!r} cannot be used: no model is trained on {device.type}. Use auto, cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise UserError(
            f"device {name!r} is not available: this torch sees {seen} GPUs. Use cpu, or install a torch build for "
            "your GPU."
        )
    if device.type in ("cpu", "mps") and device.index:
        raise UserError(f"device {name!r} does not exist: there is one {device.type}. Use {device.type}.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {name!r} is not available on this machine. Use auto or cpu.")
    _try(name)
    return name


def _try(name: str) -> None:
    """Raises UserError unless a product of two small matrices comes back right from the device."""
    import torch

    try:
        right = float((torch.full((2, 2), 3.0, device=name) @ torch.ones(2, 2, device=name)).cpu().sum()) == 24.0
    except Exception as error:  # torch raises errors of many classes for devices that it cannot reach
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"device {name!r} cannot be used on this machine ({reason}). Use auto or cpu.") from error
    if not right:
        raise UserError(f"device {name!r} computes wrong results (3 * 1 summed 8 times is not 24). Use cpu.")


def device_of(name: str, crew: Crew) -> str:
    """The device of one of several processes: the GPU of its number on its machine. name: from `pick_device`.

    Raises UserError where the config names one GPU for all of them.
    """
    if crew.size == 1 or not name.startswith("cuda"):
        return name
    import os

    import torch

    if name != "cuda":
        raise UserError(
            f"model.device is {name}, but {crew.size} processes would share that GPU. Set it to auto: each "
            "process then takes a GPU of its own."
        )
    own, there = int(os.environ.get("LOCAL_RANK", crew.rank)), torch.cuda.device_count()
    if own >= there:
        raise UserError(
            f"{own + 1} processes or more were started on a machine with {there} GPUs. Start one process for each GPU."
        )
    return f"cuda:{own}"


def gpu_memory(device: torch.device) -> tuple[float, float] | None:
    """(bytes free beside the loaded weights, bytes of the GPU in all); None without a GPU."""
    import torch

    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + unused, total
