"""Finds the places of LoRA layers in a model by its configs alone, and joins LoRA files by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import UserError
from ...run.files import atomic_path
from ...training.lora_files import lora_file, read_lora, read_metadata, write_tensors
from ...training.lora_join import (
    Source,
    check_difference,
    file_dtype,
    join_layers,
    joined_metadata,
    joined_tensors,
    largest_difference,
)
from ...training.lora_layers import LoraLayer
from .loras import plan_merge
from .skeleton import skeleton


@dataclass(frozen=True)
class Joined:
    """What was written. layers: number of layers in each source and in the file. ranks: smallest and largest.
    difference: see `largest_difference`.
    """

    file: Path
    sources: tuple[int, ...]
    layers: int
    ranks: tuple[int, int]
    dtype: torch.dtype
    difference: float


def changes_text(tensors: Sequence[str]) -> bool:
    """Whether keys of a LoRA file name text encoders."""
    return any(key.startswith(("lora_te", "text_encoder")) for key in tensors)


def placed_layers(pipe: Any, lora: Path) -> dict[str, LoraLayer]:
    """The layers of a LoRA, of any tool, by the names of the pipeline's layers with the component before them.

    Raises UserError as `plan_merge` does: it names layers without a place.
    """
    names = {
        id(module): f"{part}.{name}"
        for part in ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
        if isinstance(whole := getattr(pipe, part, None), torch.nn.Module)
        for name, module in whole.named_modules()
    }
    return {names[id(merge.module)]: merge.layer for merge in plan_merge(pipe, lora)}


def _read_again(pipe: Any, file: Path) -> dict[str, LoraLayer]:
    try:
        return placed_layers(pipe, file)
    except UserError as error:
        raise UserError(
            f"the joined file cannot be read again and was not kept: {error} These two cannot be one file. Load the "
            "LoRAs one after the other instead."
        ) from error


def join_files(
    model: Path, configs: Path | None, loras: Sequence[tuple[Path, float]], out: Path, same_rank: bool = True
) -> Joined:
    """Join LoRA files, each with its strength, into one new file, and read it again.

    model, configs: as in a run's config; only configs are read, to match layers that tools name differently. The file
    gets the name `out` only after the check. Raises UserError when `out` exists, when a file is no plain LoRA or does
    not fit the model, and as `join_layers` and `check_difference` do.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists and is not overwritten. Give another file as --out, or move this one away.")
    if out.suffix != ".safetensors":
        raise UserError(f"{out} must end in .safetensors. Give such a name as --out.")
    files = [lora_file(lora) for lora, _ in loras]
    pipe = skeleton(model, configs, any(changes_text(list(read_lora(file))) for file in files))
    sources = [
        Source(file.name, placed_layers(pipe, file), strength, read_metadata(file))
        for file, (_, strength) in zip(files, loras, strict=True)
    ]
    layers = join_layers(sources, same_rank)
    with atomic_path(out) as beside:
        one_text = getattr(pipe, "text_encoder_2", None) is None
        write_tensors(joined_tensors(layers, one_text), beside, joined_metadata(sources, layers))
        difference = largest_difference(sources, _read_again(pipe, beside))
        check_difference(difference, file_dtype(sources))
    ranks = [len(layer.down) for layer in layers.values()]
    counts = tuple(len(source.layers) for source in sources)
    return Joined(out, counts, len(layers), (min(ranks), max(ranks)), file_dtype(sources), difference)
