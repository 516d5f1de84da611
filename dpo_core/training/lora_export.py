"""LoRA files in diffusers' own form: PEFT keys `<component>.<layer>.lora_A.weight` and `.lora_B.weight`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import UserError
from ..lora_forms import FORMS
from .lora_files import PREFIX, read_lora, read_metadata, write_lora, write_tensors

_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


@dataclass(frozen=True, eq=False)
class Part:
    """A layer of diffusers' model that holds output rows of a trained layer.

    name: diffusers' name of the layer, with the component before it ("unet." or "transformer."). rows: indices of the
    trained layer's output rows, int64 [n], in diffusers' order; None: all of them.
    """

    name: str
    rows: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Export:
    """What the diffusers form of a LoRA needs to know of its model.

    family: the model's class, for messages. parts: for each key prefix of the kohya form, the layers that together
    hold its rows in diffusers' model. A prefix that is absent has no place there.
    """

    family: str
    parts: Mapping[str, tuple[Part, ...]]


def diffusers_tensors(lora: Mapping[str, torch.Tensor], export: Export) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA of the kohya form in diffusers' form, float32.

    alpha / rank is multiplied into `lora_B`: one rounding of float32, none where it is a power of two. A layer that
    diffusers has as several shares its `lora_A` and splits the rows of `lora_B`, which is exact. Raises UserError
    naming the layers that diffusers' model cannot hold.
    """
    names = [key.removesuffix(_UP) for key in lora if key.endswith(_UP)]
    _check_known(names, export)
    made: dict[str, torch.Tensor] = {}
    for name in names:
        down, up = lora[name + _DOWN].float(), lora[name + _UP].float()
        scale = float(lora[name + _ALPHA]) / len(down) if name + _ALPHA in lora else 1.0
        parts = export.parts[name]
        _check_covered(name, len(up), parts, export.family)
        for part in parts:
            rows = up if part.rows is None else up[part.rows]
            made[f"{part.name}.lora_A.weight"] = down.clone()  # safetensors refuses tensors that share memory
            made[f"{part.name}.lora_B.weight"] = rows * scale
    return made


def _check_known(names: list[str], export: Export) -> None:
    unknown = sorted(name for name in names if name not in export.parts)
    if unknown:
        raise UserError(
            f"{len(unknown)} of the LoRA's {len(names)} layers have no known place in diffusers' model of "
            f"{export.family} (first: {', '.join(unknown[:3])}). Save the LoRA in the format kohya; or train without "
            "these layers, with fewer targets."
        )


def _check_covered(name: str, rows: int, parts: tuple[Part, ...], family: str) -> None:
    """Raises UserError unless every row of the layer is in the parts exactly once."""
    held = [torch.arange(rows) if part.rows is None else part.rows for part in parts]
    if not torch.equal(torch.cat(held).sort().values, torch.arange(rows)):
        raise UserError(
            f"layer {name} of {family} has {rows} output rows, and diffusers' layers "
            f"{', '.join(p.name for p in parts)} hold others: this is not the model that "
            "diffusers knows. Save the LoRA in the format kohya."
        )


def write_form(
    lora: Mapping[str, torch.Tensor],
    path: Path,
    form: str,
    export: Export | None,
    scale: tuple[int, float],
    metadata: Mapping[str, str],
) -> None:
    """Write a LoRA of the kohya form in one of FORMS.

    export: needed for the form diffusers. scale: (rank, alpha), for the header of the kohya form. Raises UserError as
    `diffusers_tensors` and `write_lora` do.
    """
    if form == "kohya":
        return write_lora(lora, path, *scale, metadata)
    if form not in FORMS or export is None:
        raise ValueError(f"cannot write the form {form!r} with export {export!r}")
    written = {"format": "pt", "dreambooth_dpo.format": form, **metadata}
    return write_tensors(diffusers_tensors(lora, export), path, written)


# --- files of `dreambooth-dpo run`: a UNet's layers under diffusers' names, with underscores for points ---

_UNET_WORDS = re.compile(
    r"(?:down_blocks|up_blocks|mid_block|transformer_blocks|attentions|resnets|downsamplers|upsamplers|attn[12]"
    r"|to_out|to_[qkv]|time_emb_proj|proj_in|proj_out|proj|conv_shortcut|conv[12]|conv|ff|net|\d+)(?:_|$)"
)


def unet_layer(prefix: str) -> str | None:
    """The layer of diffusers' UNet that a key prefix of the kohya form means; None where it means none.

    Underscores stand for points and for themselves: the words of diffusers' UNets are taken as they are.
    """
    rest, words = prefix.removeprefix(PREFIX), []
    if not rest.startswith(("down_blocks_", "up_blocks_", "mid_block_")):
        return None
    while rest:
        if (word := _UNET_WORDS.match(rest)) is None:
            return None
        words.append(word[0].removesuffix("_"))
        rest = rest[word.end() :]
    return ".".join(words)


def unet_export(lora: Mapping[str, torch.Tensor]) -> Export:
    """The export of a LoRA of a UNet whose keys hold diffusers' names."""
    named = {key.removesuffix(_UP): unet_layer(key.removesuffix(_UP)) for key in lora if key.endswith(_UP)}
    return Export("Stable Diffusion", {key: (Part(f"unet.{name}"),) for key, name in named.items() if name})


def export_file(lora: Path, out: Path, form: str = "diffusers") -> int:
    """Write the LoRA file of a UNet that `run` made in another form; returns the number of its layers.

    Raises UserError when the file is not such a LoRA, when it holds layers under names that are not diffusers', or
    when `out` is the same file.
    """
    if form not in FORMS:
        raise UserError(f"format {form!r} is unknown. Choose one of {', '.join(FORMS)}.")
    lora, out = Path(lora), Path(out)
    if out.resolve() == lora.resolve():
        raise UserError(f"{out} is the LoRA itself, which would be overwritten. Give another file as --out.")
    tensors = read_lora(lora)
    export = unet_export(tensors)
    if not export.parts:
        raise UserError(
            f"{lora} does not hold a UNet's layers under diffusers' names, as `dreambooth-dpo run` writes them (first "
            f"key: {next(iter(tensors))}). For a LoRA that was trained in ComfyUI, set the format of Save DPO LoRA."
        )
    told = {key: value for key, value in read_metadata(lora).items() if not key.startswith(("ss_", "format"))}
    first = next(iter(export.parts))
    rank = len(tensors[first + _DOWN])
    write_form(tensors, out, form, export, (rank, float(tensors.get(first + _ALPHA, rank))), told)
    return len(export.parts)
