"""Save DPO LoRA: write a LoRA into ComfyUI's loras folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...dpo_core.errors import UserError
from ...dpo_core.training.lora_export import Export, write_form
from ...dpo_core.training.lora_files import read_lora
from ..host.runs import check_name

CLOSE = 1e-3
"""Relative difference of a weight change from which on the text warns."""


def check_prefix(prefix: str) -> str | None:
    """Why a file prefix ("folder/name") is invalid, or None if it is valid."""
    parts = prefix.replace("\\", "/").split("/")
    if any(check_name(part) for part in parts):
        return (
            f"filename_prefix {prefix!r} is not a valid name under models/loras: use plain folder and file names, "
            "such as dreambooth_dpo/my_dog."
        )
    return None


def save_numbered(lora: Mapping[str, Any], prefix: str, form: str | None = None, model: Any = None) -> str:
    """Write <first loras folder>/<prefix>_<number>.safetensors; returns the name that Load LoRA lists.

    The number is one above the highest in use. form: one of lora_export.FORMS; None (a saved graph without the widget):
    kohya. model: the MODEL, for the form diffusers of a LoRA from another node. Raises UserError for a LoRA without
    weights, an invalid prefix, or layers that the form cannot hold.
    """
    if wrong := check_prefix(prefix):
        raise UserError(wrong)
    down = next((value for key, value in lora.items() if ".lora_down" in key), None)
    if down is None:
        raise UserError("the connected LoRA holds no low-rank weights: connect the lora output of DPO LoRA Train Step.")
    export = _export(lora, model) if form == "diffusers" else None
    root, path = next_path(prefix)
    rank = getattr(lora, "rank", down.shape[0])
    alpha = getattr(
        lora, "alpha", next((float(value) for key, value in lora.items() if key.endswith(".alpha")), float(rank))
    )
    write_form(lora, path, form or "kohya", export, (rank, alpha), getattr(lora, "metadata", {}))
    return str(path.relative_to(root))


def next_path(prefix: str) -> tuple[Path, Path]:
    """(the first loras folder, the next free path of the prefix in it)"""
    import folder_paths

    root = Path(folder_paths.get_folder_paths("loras")[0])
    return root, _next_free(root / prefix.replace("\\", "/"))


def _export(lora: Mapping[str, Any], model: Any) -> Export:
    """What the diffusers form needs: from the train step, else from the connected MODEL."""
    from ...dpo_core.backends.comfyui import export_of_lora

    export = getattr(lora, "export", None)
    if export is None and model is None:
        raise UserError(
            "the format diffusers needs the names of the model's layers, which the connected LoRA does not carry: "
            "connect the MODEL that it was trained on to model, or choose the format kohya."
        )
    return export or export_of_lora(model.model, lora)


def saved_words(name: str, lora: Mapping[str, Any], form: str | None = None, model: Any = None) -> str:
    """What the node says after saving. The file is read again and compared with the LoRA.

    model: compared by ComfyUI's own loader on this MODEL. Raises UserError when the file cannot be read.
    """
    import folder_paths

    path = Path(folder_paths.get_folder_paths("loras")[0]) / name
    saved = read_lora(path)
    note = getattr(lora, "note", "")
    first = f"saved as {name}" + (f": {note}" if note else "") + f"\n{where_words(path)}"
    if model is not None:
        from ...dpo_core.backends.comfyui import check_lora, live_adapter

        of = "the adapter on the connected MODEL" if live_adapter(model) else "the LoRA"
        return "\n".join([first, *_check_words(check_lora(model, saved, lora), of, form or "kohya", bool(note))])
    if form != "diffusers" and not _same(saved, lora):
        return (
            f"{first}\nWarning: the file differs from the LoRA that was to be written. Check the disk, and save again."
        )
    return first


def where_words(path: Path) -> str:
    """Where the file is, and how it comes into Load LoRA's list."""
    return (
        "Load LoRA lists it under this name. An open page refreshes its lists by itself; if one does not, press R.\n"
        f"File: {path}"
    )


def _same(saved: Mapping[str, Any], lora: Mapping[str, Any]) -> bool:
    """Whether two LoRAs hold the same tensors bit for bit."""
    import torch

    return saved.keys() == lora.keys() and all(torch.equal(saved[k], lora[k].cpu()) for k in saved)


def _check_words(check: Any, of: str, form: str, noted: bool) -> list[str]:
    """check: backends.comfyui.LoraCheck. of: what the file was compared with. noted: the rounding is in the text."""
    from .train import rounding_note

    read, lines = check.layers - len(check.unread), []
    if check.unread and form == "diffusers":
        lines.append(
            f"This file is for diffusers: ComfyUI's Load LoRA reads {read} of its {check.layers} layers. Save the "
            "format kohya for ComfyUI."
        )
    elif check.unread:
        lines.append(
            f"Warning: ComfyUI's Load LoRA reads {read} of {check.layers} layers of {of} (not read, first: "
            f"{check.unread[0]}). Connect the MODEL that the LoRA was trained on."
        )
    if read and check.worst > CLOSE:
        lines.append(
            f"Warning: loaded by ComfyUI, the file's change of a weight differs by up to {check.worst:.2g} (relative) "
            f"from that of {of}. Connect the MODEL that this LoRA belongs to."
        )
    elif read:
        lines.append(f"Read back by ComfyUI's loader: equal to {of} in {read} layers (difference {check.worst:.1g}).")
    if check.rounding is not None and not noted:
        lines.append(f"Warning: {rounding_note(check.rounding)}.")
    return lines


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
