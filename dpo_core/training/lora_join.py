"""Joins LoRAs into one: ranks are concatenated, so the joined LoRA changes each weight by the sum of their changes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from ..errors import UserError
from .lora_files import PREFIX, weight_change
from .lora_layers import LoraLayer

LIMITS = {torch.float16: 1e-2, torch.bfloat16: 1e-2}
"""Largest relative difference that a joined file of these dtypes may have; 1e-3 for float32 and wider."""
JOINED = "dreambooth_dpo.joined"
"""Name in a joined file's header: the files that it holds and their strengths, as JSON."""
_TEXT_KEYS = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_", "text_encoder_3": "lora_te3_"}


@dataclass(frozen=True, eq=False)
class Source:
    """A LoRA to join. file: its name, for messages and the header. layers: by the model's name of the layer, with the
    component before it ("unet.mid_block..."). strength: factor on all of it, any finite number; at 0 the LoRA is left
    out. header: the file's metadata.
    """

    file: str
    layers: Mapping[str, LoraLayer]
    strength: float = 1.0
    header: Mapping[str, str] = field(default_factory=dict)


def file_dtype(sources: Sequence[Source]) -> torch.dtype:
    """The dtype that holds every matrix of the sources without rounding; float32 where one has 8 bits or is no float.

    float16 beside bfloat16 gives float32, because neither holds the other.
    """
    kinds = {m.dtype for s in sources for layer in s.layers.values() for m in (layer.down, layer.up)}
    kinds = {k if k.is_floating_point and k.itemsize > 1 else torch.float32 for k in kinds}
    found = kinds.pop() if kinds else torch.float32
    for kind in kinds:
        found = torch.promote_types(found, kind)
    return found


def join_layers(sources: Sequence[Source], same_rank: bool = True) -> dict[str, LoraLayer]:
    """The joined layers by the model's name, each with scale 1.

    down [r, in, ...]: the sources' matrices stacked, r = the sum of their ranks; up [out, r, ...]: theirs side by side,
    each times strength * alpha / rank. So up @ down is the sum of the sources' changes. The factor is multiplied in
    float32 or wider and rounded once to `file_dtype`: exact for a power of two, else an error of up to 6e-8 (float32),
    5e-4 (float16) or 4e-3 (bfloat16) of each number. same_rank: layers of a smaller rank are filled with zeros up to
    the largest, which adds nothing and is read alike by all loaders (docs/lora.md).

    Raises UserError when nothing is left to join, when two files have other shapes for one layer, or when a number is
    too large for the file's dtype.
    """
    dtype, parts = file_dtype(sources), {}
    for source in sources:
        for name, layer in source.layers.items() if source.strength else ():
            parts.setdefault(name, []).append((source, layer))
    if not parts:
        raise UserError("every LoRA to join has strength 0 or no layers. Give at least one a strength.")
    joined = {name: _joined(name, found, dtype) for name, found in parts.items()}
    if not same_rank:
        return joined
    rank = max(len(layer.down) for layer in joined.values())
    return {name: _padded(layer, rank) for name, layer in joined.items()}


def _joined(name: str, parts: Sequence[tuple[Source, LoraLayer]], dtype: torch.dtype) -> LoraLayer:
    shapes = {(len(layer.up), *layer.down.shape[1:]): source.file for source, layer in parts}
    if len(shapes) > 1:
        told = "; ".join(f"{file}: {list(shape)}" for shape, file in shapes.items())
        raise UserError(
            f"layer {name} has different shapes in the LoRAs ({told}). Join LoRAs that were trained on one model."
        )
    wide = torch.promote_types(dtype, torch.float32)
    down = torch.cat([layer.down.to(dtype) for _, layer in parts])
    up = torch.cat([(layer.up.to(wide) * (s.strength * layer.scale)).to(dtype) for s, layer in parts], dim=1)
    if not torch.isfinite(up).all():
        raise UserError(f"layer {name} is too large for {dtype} at these strengths. Lower the strengths.")
    return LoraLayer(name, down, up, 1.0)


def _padded(layer: LoraLayer, rank: int) -> LoraLayer:
    """The layer with rows (down) and columns (up) of zeros up to this rank."""
    more = rank - len(layer.down)
    if not more:
        return layer
    down = F.pad(layer.down, (0, 0) * (layer.down.ndim - 1) + (0, more))
    return LoraLayer(layer.name, down, F.pad(layer.up, (0, 0) * (layer.up.ndim - 2) + (0, more)), layer.scale)


def joined_tensors(layers: Mapping[str, LoraLayer], one_text: bool = True) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA file, in the form that `save_lora` writes for the model.

    one_text: whether the model has one text encoder. With a UNet: kohya's `lora_unet_<layer>`, and `lora_te_<layer>`,
    or `lora_te1_<layer>` and `lora_te2_<layer>` for a model with more than one. With a transformer:
    `<component>.<layer>.lora_A.weight` and `.lora_B.weight`. Kohya's form has alphas equal to the rank if all ranks are
    equal, and none otherwise: diffusers misreads alphas of attention layers that differ, and all loaders take a layer
    without alpha at strength 1.
    """
    if any(name.startswith("transformer.") for name in layers):
        halves, equal = ("lora_A", "lora_B"), False
        keys = {name: ".".join(_component(name)) for name in layers}
    else:
        halves, equal = ("lora_down", "lora_up"), len({len(layer.down) for layer in layers.values()}) == 1
        keys = {name: _kohya_key(*_component(name), one_text) for name in layers}
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{keys[name]}.{halves[0]}.weight"] = layer.down
        tensors[f"{keys[name]}.{halves[1]}.weight"] = layer.up
        if equal:
            tensors[f"{keys[name]}.alpha"] = torch.tensor(float(len(layer.down)))
    return tensors


def _component(name: str) -> tuple[str, str]:
    """(component, layer). CLIP's text model has its layers below `text_model` in files of all tools."""
    part, _, layer = name.partition(".")
    clip = part.startswith("text_encoder") and layer.startswith("encoder.layers.")
    return part, f"text_model.{layer}" if clip else layer


def _kohya_key(part: str, layer: str, one_text: bool) -> str:
    prefix = PREFIX if part == "unet" else "lora_te_" if one_text else _TEXT_KEYS[part]
    return prefix + layer.replace(".", "_")


def joined_metadata(sources: Sequence[Source], layers: Mapping[str, LoraLayer]) -> dict[str, str]:
    """The header of the joined file.

    `ss_*` of the first source, without those of its network (rank, alpha, arguments), which no longer hold;
    `dreambooth_dpo.*` of all, the last source's first; `dreambooth_dpo.joined`: names and strengths of the files.
    """
    told = {k: v for k, v in sources[0].header.items() if k.startswith("ss_") and not k.startswith("ss_network_")}
    for source in sources:
        told |= {k: v for k, v in source.header.items() if k.startswith("dreambooth_dpo.")}
    told.pop("dreambooth_dpo.format", None)
    told[JOINED] = json.dumps([{"file": s.file, "strength": s.strength} for s in sources], ensure_ascii=False)
    if any(name.startswith("transformer.") for name in layers):
        return {"format": "pt", **told, "dreambooth_dpo.format": "diffusers"}
    ranks = {len(layer.down) for layer in layers.values()}
    size = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"  # sd-scripts' word in resize_lora.py
    network = {"ss_network_module": "networks.lora", "ss_network_dim": size, "ss_network_alpha": size}
    return {"format": "pt", **told, **network}


def largest_difference(sources: Sequence[Source], joined: Mapping[str, LoraLayer]) -> float:
    """The largest relative difference of any layer's change between a joined LoRA and the sum of its sources.

    A layer's difference: Frobenius norm of (joined change - sum of the sources' changes), over the sum of the norms of
    the sources' changes; computed in float32. Its own rounding is about 3e-7. Raises UserError that names the layers
    which only one of the two sides has.
    """
    used = [source for source in sources if source.strength]
    names = {name for source in used for name in source.layers}
    if lost := sorted(names ^ joined.keys()):
        raise UserError(
            f"the joined file was read again, and {len(lost)} of {len(names)} layers are not as joined (first: "
            f"{', '.join(lost[:3])}): this form cannot hold them. Load the LoRAs one after the other instead."
        )
    worst = 0.0
    for name, layer in joined.items():
        rest, norms = weight_change(layer.down, layer.up, layer.scale), 0.0
        for source in used:
            if (part := source.layers.get(name)) is not None:
                change = weight_change(part.down, part.up, source.strength * part.scale)
                norms += float(change.norm())
                rest -= change
        apart = float(rest.norm())
        worst = max(worst, apart / norms if norms else float(apart > 0))
    return worst


def check_difference(found: float, dtype: torch.dtype) -> None:
    """Raises UserError when a joined file differs from the sum of its sources by more than its dtype allows."""
    limit = LIMITS.get(dtype, 1e-3)
    if not found <= limit:
        raise UserError(
            f"the joined file was read again, and a layer's change differs from the sum of the two by {found:.1e} "
            f"(limit {limit:g} for {dtype}); it was not kept. Load the LoRAs one after the other instead."
        )
