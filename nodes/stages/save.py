"""Save DPO LoRA: write a LoRA into ComfyUI's loras folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...dpo_core.errors import UserError
from ...dpo_core.training.lora_files import write_lora
from ..host.runs import check_name


def check_prefix(prefix: str) -> str | None:
    """Why a file prefix ("folder/name") is invalid, or None if it is valid."""
    parts = prefix.replace("\\", "/").split("/")
    if any(check_name(part) for part in parts):
        return (
            f"filename_prefix {prefix!r} is not a valid name under models/loras: use plain folder and file names, "
            "such as dreambooth_dpo/my_dog."
        )
    return None


def save_numbered(lora: Mapping[str, Any], prefix: str) -> str:
    """Write <first loras folder>/<prefix>_<number>.safetensors; returns the name that Load LoRA lists.

    The number is one above the highest in use. Raises UserError for a LoRA without weights or an invalid prefix.
    """
    import folder_paths

    if wrong := check_prefix(prefix):
        raise UserError(wrong)
    down = next((value for key, value in lora.items() if ".lora_down" in key), None)
    if down is None:
        raise UserError("the connected LoRA holds no low-rank weights: connect the lora output of DPO LoRA Train Step.")
    root = Path(folder_paths.get_folder_paths("loras")[0])
    path = _next_free(root / prefix.replace("\\", "/"))
    rank = getattr(lora, "rank", down.shape[0])
    alpha = getattr(
        lora, "alpha", next((float(value) for key, value in lora.items() if key.endswith(".alpha")), float(rank))
    )
    write_lora(lora, path, rank, alpha, getattr(lora, "metadata", {}))
    return str(path.relative_to(root))


def _next_free(base: Path) -> Path:
    """<base>_<number>.safetensors with a number one above the highest in use."""
    taken = [
        int(m[1])
        for f in base.parent.glob("*.safetensors")
        if (m := re.fullmatch(rf"{re.escape(base.name)}_(\d+)", f.stem))
    ]
    number = max(taken, default=0) + 1
    # On a case-insensitive file system the file may exist under another spelling ("Dog", "dog").
    while (path := base.with_name(f"{base.name}_{number:05d}.safetensors")).exists():
        number += 1
    return path
