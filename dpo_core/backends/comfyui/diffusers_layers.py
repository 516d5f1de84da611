"""Where diffusers' model of a family holds the layers of ComfyUI's: names, and rows of fused layers.

The host's own maps where it has one, else renamings of names. tests/host/test_lora_matrix.py loads the results with
diffusers' real loaders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...training.lora_export import Export, Part
from . import host

_COSMOS = (
    (r"blocks\.(\d+)\.self_attn\.([qkv])_proj", r"transformer_blocks.\1.attn1.to_\2"),
    (r"blocks\.(\d+)\.cross_attn\.([qkv])_proj", r"transformer_blocks.\1.attn2.to_\2"),
    (r"blocks\.(\d+)\.self_attn\.output_proj", r"transformer_blocks.\1.attn1.to_out.0"),
    (r"blocks\.(\d+)\.cross_attn\.output_proj", r"transformer_blocks.\1.attn2.to_out.0"),
    (r"blocks\.(\d+)\.mlp\.layer1", r"transformer_blocks.\1.ff.net.0.proj"),
    (r"blocks\.(\d+)\.mlp\.layer2", r"transformer_blocks.\1.ff.net.2"),
    (r"blocks\.(\d+)\.adaln_modulation_self_attn\.([12])", r"transformer_blocks.\1.norm1.linear_\2"),
    (r"blocks\.(\d+)\.adaln_modulation_cross_attn\.([12])", r"transformer_blocks.\1.norm2.linear_\2"),
    (r"blocks\.(\d+)\.adaln_modulation_mlp\.([12])", r"transformer_blocks.\1.norm3.linear_\2"),
)
_WAN = (
    (r"blocks\.(\d+)\.self_attn\.([qkv])", r"blocks.\1.attn1.to_\2"),
    (r"blocks\.(\d+)\.cross_attn\.([qkv])", r"blocks.\1.attn2.to_\2"),
    (r"blocks\.(\d+)\.self_attn\.o", r"blocks.\1.attn1.to_out.0"),
    (r"blocks\.(\d+)\.cross_attn\.o", r"blocks.\1.attn2.to_out.0"),
    (r"blocks\.(\d+)\.ffn\.0", r"blocks.\1.ffn.net.0.proj"),
    (r"blocks\.(\d+)\.ffn\.2", r"blocks.\1.ffn.net.2"),
)
_LUMINA = (
    (r"(.*)\.attention\.qkv", r"\1.attn.qkv"),
    (r"(.*)\.attention\.out", r"\1.attn.to_out.0"),
    (r"(.*)\.feed_forward\.w([123])", r"\1.feed_forward.linear_\2"),
    (r"(.*)\.adaLN_modulation\.1", r"\1.norm1.linear"),
)
_SAME = ((r"(.*)", r"\1"),)
_FUSED = "ff.linear|to_qkv_mlp_proj|single_transformer_blocks.*attn.to_out$"


@dataclass(frozen=True)
class _Family:
    """How a family's layers are found: by the host's map, else by names.

    host_map: function in comfy.utils. unlike: diffusers names in it that are those of another model. renamed: (whole
    native name, diffusers name) as regular expressions, the first that matches; a layer "qkv" is split. A layer that
    none matches has no place.
    """

    host_map: str | None = None
    unlike: str = "^$"
    renamed: tuple[tuple[str, str], ...] = ()


_UNET = _Family("unet_to_diffusers")
_FLUX = _Family("flux_to_diffusers", rf"{_FUSED}|ff_context.linear")
FAMILIES: dict[str, _Family] = {
    "BaseModel": _UNET,
    "SDXL": _UNET,
    "SD3": _Family("mmdit_to_diffusers"),
    "AuraFlow": _Family("auraflow_to_diffusers"),
    "Flux": _FLUX,
    "Chroma": _FLUX,
    "Flux2": _Family("flux_to_diffusers", r"net\.|single_transformer_blocks.*(attn\.to_[qkv]|proj_mlp|proj_out)$"),
    "Z-Image": _Family("z_image_to_diffusers"),
    "Lumina2": _Family(renamed=_LUMINA),
    "Krea2": _Family("krea2_to_diffusers", r"attn\.to_out$"),
    "CosmosPredict2": _Family(renamed=_COSMOS),
    "Anima": _Family(renamed=_COSMOS),
    "WAN21": _Family(renamed=_WAN),
    "QwenImage": _Family(renamed=_SAME),
    "ErnieImage": _Family(renamed=_SAME),
    "HiDream": _Family(renamed=_SAME),
    "Kandinsky5Image": _Family(renamed=_SAME),
}
"""By the class of comfy.model_base; Z-Image is a kind of its Lumina2."""


def family_of(model: Any) -> str:
    """The name of a model (comfy's BaseModel) in FAMILIES, or of its class."""
    name = type(model).__name__
    return "Z-Image" if name == "Lumina2" and model.model_config.unet_config.get("z_image_modulation") else name


def export_of(model: Any, prefixes: Mapping[str, str]) -> Export:
    """The diffusers form of a LoRA of `model` (comfy's BaseModel). prefixes: key prefix of each layer, by native name.

    A family that is not in FAMILIES has no layers in it.
    """
    name = family_of(model)
    family = FAMILIES.get(name)
    if family is None or (name == "BaseModel" and not host.unet_names(model)):
        return Export(name, {})
    component = "unet" if family is _UNET else "transformer"
    found = _by_host(model, family) if family.host_map else _by_name(model, family, prefixes)
    return Export(
        name,
        {
            prefix: tuple(Part(f"{component}.{part.name}", part.rows) for part in found[layer])
            for layer, prefix in prefixes.items()
            if layer in found
        },
    )


def export_of_lora(model: Any, lora: Mapping[str, Any]) -> Export:
    """The export of any LoRA of the kohya form for `model`, such as that of ComfyUI's own trainer."""
    held = {key.partition(".lora_up.")[0] for key in lora if ".lora_up." in key}
    return export_of(model, {layer: key for key, layer in host.lora_layers(model).items() if key in held})


def _by_host(model: Any, family: _Family) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {}
    for theirs, place in host.diffusers_places(model, family.host_map).items():
        if not re.search(family.unlike, theirs):
            found.setdefault(place.layer, []).append(Part(theirs, _rows(model, place)))
    return found


def _rows(model: Any, place: Any) -> torch.Tensor | None:
    """The native rows of a host's place, in diffusers' order."""
    if place.rows is None and place.change is None:
        return None
    if place.rows is not None:
        rows = torch.arange(place.rows[0], sum(place.rows))
    else:
        try:
            rows = torch.arange(len(model.diffusion_model.get_submodule(place.layer).weight))
        except AttributeError:  # the host's map names layers that a smaller model has not
            return None
    return place.change(rows) if place.change else rows


def _by_name(model: Any, family: _Family, layers: Mapping[str, str]) -> dict[str, list[Part]]:
    found = {}
    for layer in layers:
        matches = (m.expand(to) for pattern, to in family.renamed if (m := re.fullmatch(pattern, layer)))
        if theirs := next(matches, None):
            found[layer] = _split(model, layer, theirs) if theirs.endswith(".qkv") else [Part(theirs)]
    return found


def _split(model: Any, layer: str, theirs: str) -> list[Part]:
    """Query, key and value of a fused layer; keys and values have fewer heads where the model says so."""
    config, total = model.model_config.unet_config, len(model.diffusion_model.get_submodule(layer).weight)
    queries, values = config["n_heads"], config.get("n_kv_heads") or config["n_heads"]
    head = total // (queries + 2 * values)
    ends = [0, queries * head, (queries + values) * head, (queries + 2 * values) * head]
    return [
        Part(theirs.removesuffix("qkv") + part, torch.arange(start, end))
        for part, start, end in zip(("to_q", "to_k", "to_v"), ends, ends[1:], strict=False)
    ]
