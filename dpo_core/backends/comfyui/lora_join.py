"""Joins the LoRAs that a MODEL carries with a trained one: the files are found by the weights on the MODEL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import UserError
from ...training.blocks import weight_shape
from ...training.lora_files import read_lora, read_metadata
from ...training.lora_join import (
    Source,
    check_difference,
    file_dtype,
    join_layers,
    joined_metadata,
    largest_difference,
)
from ...training.lora_layers import LoraLayer
from . import host
from .live import lora_prefixes
from .lora_check import MOST

_ROOT, _WEIGHT = "diffusion_model.", ".weight"
OURS = "DPO LoRA"
"""Name of the trained LoRA in the header of a joined file."""
Patches = Mapping[str, Sequence[host.Patch]]


@dataclass(frozen=True, eq=False)
class Carried:
    """A LoRA file that a MODEL carries. strength: on the MODEL, the sum if it is loaded several times. patches: what
    the host makes of it. rest: tensors that the host reads nothing of for a MODEL: those of text encoders.
    """

    file: str
    strength: float
    patches: Patches
    rest: Mapping[str, torch.Tensor]
    header: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class JoinedLora:
    """A joined LoRA in the kohya form. sources: (file, strength, layers) of each. ranks: smallest and largest.
    difference: see `largest_difference`. rest: tensors of text encoders among the tensors.
    """

    tensors: Mapping[str, torch.Tensor]
    header: Mapping[str, str]
    sources: Sequence[tuple[str, float, int]]
    layers: int
    ranks: tuple[int, int]
    difference: float
    rest: frozenset[str]


# --- which files are on the MODEL ---


def carried_lora(patcher: Any, file: str, path: Path) -> tuple[Carried, int]:
    """A LoRA file that the MODEL is said to carry, and how many weights have further LoRAs on them.

    Raises UserError where the file is no plain LoRA, where the MODEL does not carry just these weights at one strength,
    or where a merge after it has changed its strength.
    """
    left = {key: list(entries) for key, entries in host.weight_patches(patcher).items()}
    found = _taken(patcher, file, path, left)
    if isinstance(found, str):
        raise UserError(
            f"{file} is not what the MODEL carries: {found}. Choose the LoRA that was loaded onto this MODEL by Load "
            "LoRA (not in bypass mode), and connect that MODEL."
        )
    return found, _loras_left(left)


def carried_loras(patcher: Any, files: Mapping[str, Path]) -> list[Carried]:
    """All LoRA files that the MODEL carries, found among `files` by their weights.

    Only headers are read, and one layer of a file whose keys fit. Raises UserError where the MODEL carries none or one
    that is not among the files, and as `carried_lora`.
    """
    left = {key: list(entries) for key, entries in host.weight_patches(patcher).items()}
    if not _loras_left(left):
        raise UserError(
            "join_lora is auto, but the MODEL carries no LoRA. Connect the MODEL that the train step took, with your "
            "LoRA on it by Load LoRA (not in bypass mode), or set join_lora to none."
        )
    found = []
    for file, path in files.items():
        if Path(path).suffix == ".safetensors" and _probably(left, path):
            taken = _taken(patcher, file, path, left)
            found += [] if isinstance(taken, str) else [taken]
    if rest := _loras_left(left):
        raise UserError(
            f"{rest} weights of the MODEL are changed by a LoRA that is not among the {len(files)} files of "
            "models/loras, or that was changed since it was loaded. Put its .safetensors file there, or choose the "
            "LoRA to join by its name."
        )
    return found


def _loras_left(left: Patches) -> int:
    return sum(any(p.kind != "merge" for p in entries) for entries in left.values())


def _probably(left: Patches, path: Path) -> bool:
    """Whether a file holds the tensors of some change that is left: by its header, then by one layer's tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            for entries in left.values():
                for patch in entries:
                    if patch.keys and patch.keys <= names:
                        return _holds(file, patch)
    except (SafetensorError, OSError):
        return False  # a broken file is not the one that was loaded
    return False


def _holds(file: Any, patch: host.Patch) -> bool:
    """Whether every matrix of a change is among the file's tensors of the keys that were read."""
    wanted = [t for t in patch.tensors if isinstance(t, torch.Tensor)]
    shapes = {key: tuple(file.get_slice(key).get_shape()) for key in patch.keys}
    return all(
        any(shape == tuple(t.shape) and torch.equal(file.get_tensor(key), t.cpu()) for key, shape in shapes.items())
        for t in wanted
    )


def _taken(patcher: Any, file: str, path: Path, left: dict[str, list[host.Patch]]) -> Carried | str:
    """The file as the MODEL carries it, taken out of `left` as often as it was loaded; or why it is not there.

    `left` stays as it is where the file is not there.
    """
    tensors = read_lora(path)
    made = host.lora_patches(patcher, tensors)
    if not made:
        return "ComfyUI reads none of its layers for this MODEL"
    read = frozenset().union(*(patch.keys for entries in made.values() for patch in entries))
    if not read <= tensors.keys():
        return "ComfyUI renames its keys, so its layers cannot be told apart from the rest"
    total, count, now = 0.0, sum(map(len, made.values())), {key: list(entries) for key, entries in left.items()}
    first = next(iter(made))
    while True:
        strengths: list[float] = []
        for key, entries in made.items():
            for patch in entries:
                place = next((i for i, p in enumerate(now.get(key, ())) if _same(p, patch)), None)
                if place is None:
                    continue
                _refuse_merged(file, host.weight_patches(patcher)[key], patch)
                strengths.append(now[key].pop(place).strength)
        if not strengths:
            break
        if len(strengths) < count:
            return f"{len(strengths)} of its {count} layers are on the MODEL"
        if len(set(strengths)) > 1:
            return f"its layers have different strengths there ({min(strengths):g} to {max(strengths):g})"
        total += strengths[0]
        if not any(_same(p, made[first][0]) for p in now[first]):
            left.update(now)
            rest = {key: tensor for key, tensor in tensors.items() if key not in read}
            return Carried(file, total, made, rest, read_metadata(path))
    return f"none of its {count} layers has the weights that are on the MODEL"


def _same(one: host.Patch, other: host.Patch) -> bool:
    """Whether two changes are equal but for their strength."""
    if (one.kind, one.rows, len(one.tensors)) != (other.kind, other.rows, len(other.tensors)) or not one.tensors:
        return False
    return all(
        torch.equal(a.cpu(), b.cpu())
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
        else a is b or a == b
        for a, b in zip(one.tensors, other.tensors, strict=True)
    )


def _refuse_merged(file: str, entries: Sequence[host.Patch], patch: host.Patch) -> None:
    """Raises UserError where models were merged after the LoRA, which has scaled its change."""
    place = next(i for i, p in enumerate(entries) if _same(p, patch))
    if any(p.of_model != 1 for p in entries[place:]):
        raise UserError(
            f"models were merged after {file} was loaded, so it acts at another strength than its own. Load the LoRA "
            "after the merge, or set join_lora to none."
        )


# --- joining ---


def join_carried(patcher: Any, lora: Mapping[str, torch.Tensor], carried: Sequence[Carried]) -> JoinedLora:
    """One LoRA that replaces the carried ones and the trained `lora` (kohya form): the sum of their changes, exactly.

    Layers that a file holds in parts (query, key and value apart) are placed in the MODEL's whole layer, by rows of
    zeros. Text encoders' tensors stay as they are. The result is read by the host's loader and compared with the sum.
    Raises UserError where a LoRA is not low rank, where two have text encoders, and as `join_layers`.
    """
    ours = Carried(OURS, 1.0, host.lora_patches(patcher, lora), {}, getattr(lora, "metadata", {}))
    if not ours.patches:
        raise UserError("the LoRA does not fit the MODEL: connect the MODEL that it was trained on to model.")
    holding = [c.file for c in carried if c.rest]
    if len(holding) > 1:
        raise UserError(
            f"{' and '.join(holding)} both hold weights of text encoders, which cannot be joined without knowing their "
            "strengths. Choose one of them in join_lora and load the other beside the result."
        )
    every = [*carried, ours]
    parts = [part for c in every for part in _sources(patcher, c)]
    joined = join_layers(parts)
    tensors = _kohya(patcher, joined)
    difference = largest_difference(parts, _read_back(patcher, tensors))
    check_difference(max(difference, _by_host(patcher, tensors, every)), file_dtype(parts))
    named = [Source(c.file, {}, c.strength, c.header) for c in every]
    rest = {key: tensor for c in carried for key, tensor in c.rest.items()}
    ranks = [len(layer.down) for layer in joined.values()]
    told = [(c.file, c.strength, len(c.patches)) for c in every]
    return JoinedLora(
        {**tensors, **rest}, joined_metadata(named, joined), told, len(joined), (min(ranks), max(ranks)), difference,
        frozenset(rest),
    )  # fmt: skip


def _sources(patcher: Any, carried: Carried) -> list[Source]:
    """The layers of a LoRA, by native name, in sources of at most one change for each layer."""
    parts: list[dict[str, LoraLayer]] = []
    for key, entries in carried.patches.items():
        for number, patch in enumerate(entries):
            parts += [{}] if number == len(parts) else []
            layer = key.removeprefix(_ROOT).removesuffix(_WEIGHT)
            if not key.startswith(_ROOT) or not key.endswith(_WEIGHT):
                raise UserError(
                    f"{carried.file} changes {key}, which is no layer of the denoiser. Load it beside ours."
                )
            shape = weight_shape(patcher.model.diffusion_model.get_submodule(layer).weight)
            parts[number][layer] = _low_rank(carried.file, layer, patch, shape)
    return [Source(carried.file, layers, carried.strength) for layers in parts]


def _low_rank(file: str, layer: str, patch: host.Patch, shape: Sequence[int]) -> LoraLayer:
    """A change as down [r, in, ...] and up [out, r, ...] of the whole layer. Raises UserError where it is no such."""
    up, down, alpha, *more = patch.tensors if patch.kind == "lora" else (None,) * 3
    if up is None or any(extra is not None for extra in more):
        what = patch.kind if up is None else "DoRA, Tucker decomposition or another shape of a weight"
        raise UserError(
            f"{file} is no plain LoRA: layer {layer} holds {what}. Only changes of low rank can be joined. Set "
            "join_lora to none and load both files, or merge that one into the model."
        )
    up, down = up.flatten(1), down.flatten(1)
    scale = 1.0 if alpha is None else alpha / len(down)
    if patch.change is not None:  # an exchange of rows
        up = patch.change(up)
    if patch.rows is not None:
        dimension, start, length = patch.rows
        if dimension == 0:
            up = torch.zeros(shape[0], up.shape[1], dtype=up.dtype).index_copy_(
                0, torch.arange(start, start + length), up
            )
        else:
            places = torch.arange(start, start + length)
            down = torch.zeros(len(down), shape[1], dtype=down.dtype).index_copy_(1, places, down)
    return LoraLayer(layer, down.reshape(-1, *shape[1:]), up.reshape(shape[0], -1, *(1,) * (len(shape) - 2)), scale)


def _kohya(patcher: Any, layers: Mapping[str, LoraLayer]) -> dict[str, torch.Tensor]:
    """The tensors of the joined layers, with alphas equal to the rank, which is the same in all."""
    prefixes, tensors = lora_prefixes(patcher.model, layers), {}
    for name, layer in layers.items():
        tensors[f"{prefixes[name]}.lora_down.weight"] = layer.down.contiguous()
        tensors[f"{prefixes[name]}.lora_up.weight"] = layer.up.contiguous()
        tensors[f"{prefixes[name]}.alpha"] = torch.tensor(float(len(layer.down)))
    return tensors


def _read_back(patcher: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, LoraLayer]:
    """The layers as the host's loader reads them."""
    read = Carried("the joined LoRA", 1.0, host.lora_patches(patcher, tensors), {}, {})
    return {name: layer for source in _sources(patcher, read) for name, layer in source.layers.items()}


def _by_host(patcher: Any, tensors: Mapping[str, torch.Tensor], every: Sequence[Carried]) -> float:
    """Largest relative difference of a weight's change by the host's own sums, of up to MOST layers evenly chosen."""
    keys = sorted({key for c in every for key in c.patches})
    worst, made = 0.0, host.lora_patches(patcher, tensors)
    for key in keys[:: -(-len(keys) // MOST)]:
        shape = weight_shape(patcher.model.get_submodule(key.removesuffix(_WEIGHT)).weight)
        sums = [c.strength * host.change_of(c.patches[key], key, shape) for c in every if key in c.patches]
        rest = host.change_of(made[key], key, shape) - sum(sums)
        worst = max(worst, float(rest.norm()) / max(sum(float(s.norm()) for s in sums), 1e-12))
    return worst
