"""Merges a LoRA file into a pipeline's weights; every layer of the file reaches the model, or the file is refused."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import torch
from torch.nn import functional as F

from ...errors import UserError
from ...training.blocks import weight_shape
from ...training.lora_files import lora_file, read_lora, read_metadata
from ...training.lora_layers import PEFT_PREFIX, LoraLayer, layer_name, lora_layers
from .quantized import raw_parts

_PARTS = (
    ("lora_unet_", "unet"), ("lora_te1_", "text_encoder"), ("lora_te_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"), ("lora_te3_", "text_encoder_3"),
)  # fmt: skip
_DOTTED = tuple(
    (f"{part}.", part) for part in ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
)
_OTHER_NAMES = {
    "time_embed_0": "time_embedding_linear_1", "time_embed_2": "time_embedding_linear_2",
    "input_blocks_0_0": "conv_in", "out_2": "conv_out",
}  # fmt: skip
"""Names of the original Stable Diffusion for layers outside the blocks."""
_OLD_ENDS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
"""The text encoder's attention layers in older diffusers files."""


@dataclass(frozen=True, eq=False)
class Merge:
    """A layer of a LoRA file and the layer of the model whose weight it changes."""

    layer: LoraLayer
    module: torch.nn.Module


def read_layers(lora: Path) -> list[LoraLayer]:
    """The layers of a LoRA file or folder. Raises UserError as `read_lora` and `lora_layers` do."""
    path = lora_file(lora)
    return lora_layers(read_lora(path), read_metadata(path), path)


def layers_for(pipe, lora: Path) -> list[LoraLayer]:
    """The layers of a LoRA under the names of the pipeline's parts.

    Keys of other tools are converted by diffusers, for all classes but StableDiffusionPipeline, whose keys are known
    here. Raises UserError as `read_layers` does, and when diffusers cannot convert them.
    """
    layers = read_layers(lora)
    if type(pipe).__name__ == "StableDiffusionPipeline":
        return layers
    path = lora_file(lora)
    convert = type(pipe).lora_state_dict
    takes = signature(convert).parameters
    more = {"return_alphas": True} if "return_alphas" in takes else {}
    if getattr(pipe, "unet", None) is not None:
        more["unet_config"] = pipe.unet.config
    try:
        found = convert(str(path.parent), weight_name=path.name, local_files_only=True, **more)
    except (ValueError, KeyError, TypeError, RuntimeError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        _refuse(lora, f"diffusers cannot read its keys as those of a {type(pipe).__name__} ({reason})")
    state, alphas = found if isinstance(found, tuple) else (found, None)
    by_layer = {layer_name(name.removesuffix(".alpha")): float(value) for name, value in (alphas or {}).items()}
    alphas = {f"{name}.alpha": torch.tensor(value) for name, value in by_layer.items()}
    return lora_layers({**state, **alphas}, read_metadata(path), path)


def plan_merge(pipe, lora: Path) -> list[Merge]:
    """The place of every layer of a LoRA in the pipeline; changes nothing.

    Raises UserError that counts and names the layers that have no place or another shape there.
    """
    layers = layers_for(pipe, lora)
    parts = [part for _, part in _DOTTED if isinstance(getattr(pipe, part, None), torch.nn.Module)]
    places = {part: _places(getattr(pipe, part)) for part in parts}
    found = [(layer, _place(layer.name, places)) for layer in layers]
    if lost := [layer.name for layer, module in found if module is None]:
        names = f"{', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}"
        _refuse(lora, f"{len(found) - len(lost)} of its {len(found)} layers are in the model; not there: {names}")
    merges = [Merge(layer, module) for layer, module in found]
    for merge in merges:
        have, change = tuple(weight_shape(merge.module.weight)), _shape(merge.layer)
        if have != change:
            _refuse(lora, f"layer {merge.layer.name} changes a weight of shape {change}, and the model's is {have}")
    if len({id(merge.module) for merge in merges}) < len(merges):
        _refuse(lora, "it holds two changes of one layer")
    return merges


def merge_lora(pipe, lora: Path, strength: float) -> None:
    """Add a LoRA, times `strength`, to the weights of denoiser and text encoders.

    Raises UserError as `plan_merge` does, and for a model that is quantized.
    """
    merges = plan_merge(pipe, lora)
    if any(len(raw_parts(merge.module.weight)) > 1 for merge in merges):
        raise UserError(f"LoRA {lora} cannot be merged into quantized weights. Merge it before the model is quantized.")
    with torch.no_grad():
        for merge in merges:
            weight = merge.module.weight
            weight.data += lora_change(merge.layer, weight, strength).to(weight)


def _refuse(lora: Path, reason: str) -> None:
    raise UserError(f"LoRA {lora} does not fit this model: {reason}. Give a LoRA that was trained on this model.")


def _places(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Linear and convolution layers by name, with underscores for points."""
    layers = ((n, m) for n, m in module.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)))
    return {name.removeprefix("text_model.").replace(".", "_"): m for name, m in layers}


def _place(name: str, places: dict[str, dict[str, torch.nn.Module]]) -> torch.nn.Module | None:
    """The model's layer that a file's layer means. Files without a component's prefix mean the denoiser first."""
    parts = tuple(places)
    for prefix, part in (*_PARTS, *_DOTTED):
        if name.startswith(prefix):
            name, parts = name.removeprefix(prefix), (part,)
            break
    name = name.removeprefix(PEFT_PREFIX).replace(".processor.", ".").replace(".", "_").removeprefix("text_model_")
    start, _, end = name.rpartition("_attn_to_")
    names = (
        name,
        _OTHER_NAMES.get(name, name),
        f"{name}_0" if name.endswith("_to_out") else name,
        f"{start}_attn_{_OLD_ENDS.get(f'to_{end}', end)}",
    )
    found = (places[part] for part in parts if part in places)
    return next((layers[n] for layers in found for n in names if n in layers), None)


def _shape(layer: LoraLayer) -> tuple[int, ...] | None:
    """Shape of the weight that a layer changes; None where its two matrices do not fit each other."""
    down, up = layer.down, layer.up
    fits = down.ndim == up.ndim in (2, 4) and up.shape[1] == len(down) and all(n == 1 for n in up.shape[2:])
    return (len(up), *down.shape[1:]) if fits else None


def lora_change(layer: LoraLayer, weight: torch.Tensor, strength: float) -> torch.Tensor:
    """What a layer adds to a weight, computed as PEFT's merge does: the same sums, to the last bit."""
    down, up, scale = layer.down.to(weight), layer.up.to(weight), layer.scale
    if strength != 1.0:
        scale *= strength
    if weight.ndim == 2:
        return (up @ down) * scale
    if weight.shape[2:] == (1, 1):
        return (up.flatten(1) @ down.flatten(1))[..., None, None] * scale
    return F.conv2d(down.transpose(0, 1), up).transpose(0, 1) * scale
