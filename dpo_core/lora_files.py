"""LoRA files that load anywhere: kohya names over diffusers layer names, in safetensors."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from .adapter import Adapter
from .errors import UserError
from .files import atomic_path

PREFIX = "lora_unet_"


def _key(layer: str) -> str:
    return PREFIX + layer.replace(".", "_")


def save_lora(adapter: Adapter, path: Path, metadata: dict[str, str]) -> None:
    """Write `lora_unet_<diffusers layer>.lora_down/lora_up.weight` and `.alpha`: what ComfyUI, kohya tools and diffusers read.

    Weights are kept in float32: a LoRA is small, and the file then acts as the live adapter did. `metadata`: string to string.
    Raises UserError when the file cannot be written; an existing file is replaced only once the new one is whole.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for name, layer in adapter.policy.items():
        tensors[f"{_key(name)}.lora_down.weight"] = layer.down.detach().cpu().contiguous()
        tensors[f"{_key(name)}.lora_up.weight"] = layer.up.detach().cpu().contiguous()
        tensors[f"{_key(name)}.alpha"] = torch.tensor(float(layer.alpha))
    rank = adapter.settings.rank
    described = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(adapter.settings.alpha),
    }
    with atomic_path(Path(path)) as beside:
        save_file(tensors, beside, metadata={**described, **metadata})


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
        raise UserError(f"{path} holds no LoRA weights (first key: {next(iter(tensors), 'none')}). Give a LoRA, not a checkpoint.")
    return tensors


def load_into_adapter(adapter: Adapter, path: Path) -> None:
    """Continue from a file that `save_lora` wrote. Raises UserError when it is of another model, rank, alpha or target choice."""
    tensors = read_lora(path)
    state: dict[str, torch.Tensor] = {}
    for name in adapter.policy:
        for own, theirs in (("down", "lora_down"), ("up", "lora_up")):
            key = f"{_key(name)}.{theirs}.weight"
            if key in tensors:
                state[f"{name}.{own}"] = tensors.pop(key)
        alpha = tensors.pop(f"{_key(name)}.alpha", None)
        if alpha is not None and not math.isclose(float(alpha), adapter.settings.alpha, rel_tol=1e-6):
            raise UserError(
                f"{path} was trained with alpha {float(alpha):g}, the adapter has {adapter.settings.alpha:g}: "
                f"it would act with another strength. Set adapter.alpha to {float(alpha):g}."
            )
    state.update(tensors)
    adapter.load(state)
