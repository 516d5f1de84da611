"""LoRA files that load anywhere: kohya names over diffusers layer names, in safetensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import UserError
from ..run.files import atomic_path
from .adapter import Adapter

PREFIX = "lora_unet_"


def _key(layer: str) -> str:
    return PREFIX + layer.replace(".", "_")


def lora_tensors(adapter: Adapter, prefixes: Mapping[str, str] | None = None) -> dict[str, torch.Tensor]:
    """The adapter as a LoRA's tensors, float32 on the CPU. `prefixes`: what each layer is called; None: kohya's name of
    its own.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in adapter.policy.items():
        key = prefixes[name] if prefixes else _key(name)
        tensors[f"{key}.lora_down.weight"] = layer.down.detach().cpu().clone()
        tensors[f"{key}.lora_up.weight"] = layer.up.detach().cpu().clone()
        tensors[f"{key}.alpha"] = torch.tensor(float(layer.alpha))
    return tensors


def save_lora(adapter: Adapter, path: Path, metadata: dict[str, str]) -> None:
    """Write `lora_unet_<diffusers layer>.lora_down/lora_up.weight` and `.alpha`: what ComfyUI, kohya tools and
    diffusers read.

    Weights are kept in float32: a LoRA is small, and the file then acts as the live adapter did. `metadata`: string to
    string. Raises UserError when the file cannot be written; an existing file is replaced only once the new one is
    whole.
    """
    write_lora(lora_tensors(adapter), path, adapter.settings.rank, adapter.settings.alpha, metadata)


def write_lora(
    tensors: Mapping[str, torch.Tensor], path: Path, rank: int, alpha: float, metadata: Mapping[str, str]
) -> None:
    """Write a LoRA's tensors with its rank and alpha in the header; see `save_lora`."""
    from safetensors.torch import save_file

    described = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
    }
    with atomic_path(Path(path)) as beside:
        save_file({k: v.contiguous() for k, v in tensors.items()}, beside, metadata={**described, **metadata})


def read_lora(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a LoRA file. Raises UserError when it is missing, not safetensors, or holds no UNet LoRA."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise UserError(f"LoRA file {path} does not exist. Give the path of a .safetensors file.")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Save or copy the LoRA again.") from error
    if not any(".lora" in k for k in tensors):
        raise UserError(
            f"{path} holds no LoRA weights (first key: {next(iter(tensors), 'none')}). Give a LoRA, not a checkpoint."
        )
    return tensors


def load_into_adapter(adapter: Adapter, path: Path) -> None:
    """Continue from a file that `save_lora` wrote.

    Raises UserError when it is of another model, rank, alpha or target choice.
    """
    load_tensors(adapter, read_lora(path), str(path))


def load_tensors(
    adapter: Adapter, tensors: Mapping[str, torch.Tensor], path: str, prefixes: Mapping[str, str] | None = None
) -> None:
    """Continue from a LoRA's tensors, as `lora_tensors` gives them; `path` is what errors call them.

    Raises UserError as above.
    """
    tensors = dict(tensors)
    state: dict[str, torch.Tensor] = {}
    for name in adapter.policy:
        prefix = prefixes[name] if prefixes else _key(name)
        for own, theirs in (("down", "lora_down"), ("up", "lora_up")):
            key = f"{prefix}.{theirs}.weight"
            if key in tensors:
                state[f"{name}.{own}"] = tensors.pop(key)
        alpha = tensors.pop(f"{prefix}.alpha", None)
        if alpha is not None and not math.isclose(float(alpha), adapter.settings.alpha, rel_tol=1e-6):
            raise UserError(
                f"{path} was trained with alpha {float(alpha):g}, the adapter has {adapter.settings.alpha:g}: "
                f"it would act with another strength. Set alpha to {float(alpha):g}."
            )
    state.update(tensors)
    adapter.load(state)
