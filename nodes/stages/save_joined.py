"""Save DPO LoRA: our LoRA in a file of its own, or with join_lora in one that holds the user's LoRA too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...dpo_core.backends.comfyui.lora_join import Carried, JoinedLora, carried_lora, carried_loras, join_carried
from ...dpo_core.errors import UserError
from ...dpo_core.run.files import atomic_path
from ...dpo_core.training.lora_export import Export, diffusers_tensors
from ...dpo_core.training.lora_files import read_lora, write_tensors
from ..sockets import AUTO, NONE
from .save import check_prefix, next_path, save_numbered, saved_words, where_words


@dataclass(frozen=True)
class Saved:
    """A written file. name: as Load LoRA lists it. words: what the node shows."""

    name: str
    words: str


def save(lora: Mapping[str, Any], prefix: str, form: str | None, model: Any, join: str | None) -> Saved:
    """Write the LoRA, with the LoRAs that `join` names in the same file if it is not NONE; then read it again.

    Raises UserError as `save_numbered`, `saved_words` and `save_joined` do.
    """
    if join not in (None, NONE):
        return Saved(*save_joined(lora, prefix, form or "kohya", model, join))
    name = save_numbered(lora, prefix, form, model)
    return Saved(name, saved_words(name, lora, form, model))


def save_joined(lora: Mapping[str, Any], prefix: str, form: str, model: Any, join: str) -> tuple[str, str]:
    """Write a new file that replaces the LoRAs on the MODEL and the trained one: (name for Load LoRA, what to show).

    join: AUTO for every LoRA on the MODEL, or one by its name in models/loras. The file gets its name only after it was
    read again, bit for bit. Raises UserError without a MODEL, and as `carried_loras`, `carried_lora`, `join_carried`.
    """
    if wrong := check_prefix(prefix):
        raise UserError(wrong)
    if model is None:
        raise UserError(
            f"join_lora is {join}, but no MODEL is connected to model, so it is not known at which strength your LoRA "
            "acts. Connect the MODEL of the train step, or set join_lora to none."
        )
    carried, beside = _on_model(model, join)
    joined = join_carried(model, lora, carried)
    tensors = dict(joined.tensors) if form == "kohya" else _diffusers(joined, model)
    header = dict(joined.header) | ({} if form == "kohya" else {"dreambooth_dpo.format": form})
    root, path = next_path(prefix)
    with atomic_path(path) as part:
        write_tensors(tensors, part, header)
        _check_written(part, tensors)
    return str(path.relative_to(root)), _words(str(path.relative_to(root)), path, joined, beside, form)


def _on_model(model: Any, join: str) -> tuple[list[Carried], int]:
    """The LoRAs to join, and the number of weights with LoRAs on the MODEL that are not joined."""
    import folder_paths

    if join != AUTO:
        path = folder_paths.get_full_path("loras", join)
        if path is None:
            raise UserError(f"join_lora is {join}, which is not in models/loras. Choose a file of the list.")
        found, beside = carried_lora(model, join, Path(path))
        return [found], beside
    names = folder_paths.get_filename_list("loras")
    paths = {name: folder_paths.get_full_path("loras", name) for name in names}
    return carried_loras(model, {name: Path(path) for name, path in paths.items() if path}), 0


def _diffusers(joined: JoinedLora, model: Any) -> dict[str, Any]:
    """The tensors in diffusers' form. Raises UserError where text encoders' weights are among them."""
    from ...dpo_core.backends.comfyui import export_of_lora

    if joined.rest:
        raise UserError(
            f"the LoRA to join holds {len(joined.rest)} tensors of text encoders, which stay under their own names, "
            "and the format diffusers has others. Choose the format kohya."
        )
    export: Export = export_of_lora(model.model, joined.tensors)
    return diffusers_tensors(joined.tensors, export)


def _check_written(path: Path, tensors: Mapping[str, Any]) -> None:
    """Raises UserError unless a file holds these tensors bit for bit."""
    import torch

    saved = read_lora(path)
    if saved.keys() != tensors.keys() or not all(torch.equal(saved[key], tensors[key].cpu()) for key in saved):
        raise UserError(
            "the joined file was read again and differs from what was written. Check the disk, and save again."
        )


def _words(name: str, path: Path, joined: JoinedLora, beside: int, form: str) -> str:
    """What the node says. beside: weights on the MODEL with LoRAs that are not in the file."""
    parts = " + ".join(f"{file} (strength {strength:g}, {layers} layers)" for file, strength, layers in joined.sources)
    files = " and ".join(file for file, *_ in joined.sources[:-1])
    low, high = joined.ranks
    rank = f"rank {low}" if low == high else f"ranks {low} to {high}"
    lines = [
        f"saved as {name}",
        where_words(path),
        f"Joined: {parts}; {joined.layers} layers, {rank}. Read by ComfyUI's "
        f"loader: equal to the sum (difference {joined.difference:.1g}).",
        f"Load it at strength 1 in place of {files}, not beside it.",
    ]
    if joined.rest:
        lines.append(f"{len(joined.rest)} tensors of text encoders are unchanged: keep the strength_clip of {files}.")
    if beside:
        lines.append(
            f"Further LoRAs change {beside} weights of the MODEL and are not in the file: load them as before."
        )
    if form == "diffusers":
        lines.append("The format diffusers is for diffusers: ComfyUI may not read all of its layers.")
    return "\n".join(lines)
