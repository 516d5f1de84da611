"""Read and write LoRA files: safetensors with kohya keys over diffusers layer names, which common tools load."""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch

from ..errors import UserError
from ..run.files import atomic_path
from ..weights_file import damage
from .adapter import Adapter
from .lora_layers import refuse_features

PREFIX = "lora_unet_"
FOLDER_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""The file of a LoRA folder, as diffusers and PEFT name it."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def _key(layer: str) -> str:
    return PREFIX + layer.replace(".", "_")


def lora_tensors(adapter: Adapter, prefixes: Mapping[str, str] | None = None) -> dict[str, torch.Tensor]:
    """The adapter as the tensors of a LoRA file, float32 on the CPU.

    `prefixes`: the key prefix of each layer; None: kohya's `lora_unet_<layer>`.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in adapter.policy.items():
        key = prefixes[name] if prefixes else _key(name)
        tensors[f"{key}.lora_down.weight"] = layer.down.detach().cpu().clone()
        tensors[f"{key}.lora_up.weight"] = layer.up.detach().cpu().clone()
        tensors[f"{key}.alpha"] = torch.tensor(float(layer.alpha))
    return tensors


def save_lora(adapter: Adapter, path: Path, metadata: dict[str, str], component: str = "unet") -> None:
    """Write the adapter as a LoRA file that ComfyUI, kohya tools and diffusers read.

    Keys of a UNet: `lora_unet_<diffusers layer>.lora_down.weight`, `.lora_up.weight` and `.alpha`. component:
    "transformer" writes the form of diffusers' transformers, `transformer.<layer>.lora_A.weight` and `.lora_B.weight`,
    with alpha / rank multiplied into `lora_B` (one rounding; none where it is a power of two). Weights stay in float32,
    so the file gives the same result as the live adapter. `metadata` is added to the header. Raises UserError when the
    file cannot be written; an existing file is replaced only when the new one is complete.
    """
    rank, alpha = adapter.settings.rank, adapter.settings.alpha
    if component == "unet":
        return write_lora(lora_tensors(adapter), path, rank, alpha, metadata)
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in adapter.policy.items():
        tensors[f"{component}.{name}.lora_A.weight"] = layer.down.detach().cpu().clone()
        tensors[f"{component}.{name}.lora_B.weight"] = layer.up.detach().cpu() * layer.scale
    return write_tensors(tensors, path, {"format": "pt", "dreambooth_dpo.format": "diffusers", **metadata})


def own_tensors(adapter: Adapter, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA file as `lora_tensors` names them, where they are of a form that `save_lora` writes.

    Raises UserError as `read_lora` does.
    """
    tensors = read_lora(path)
    own: dict[str, torch.Tensor] = {}
    for name, layer in adapter.policy.items():
        keys = [f"transformer.{name}.lora_{half}.weight" for half in "AB"]
        if not all(key in tensors for key in keys):
            continue
        own[f"{_key(name)}.lora_down.weight"] = tensors.pop(keys[0])
        own[f"{_key(name)}.lora_up.weight"] = tensors.pop(keys[1]) / layer.scale
        own[f"{_key(name)}.alpha"] = torch.tensor(float(layer.alpha))
    return {**own, **tensors}


def write_lora(
    tensors: Mapping[str, torch.Tensor], path: Path, rank: int, alpha: float, metadata: Mapping[str, str]
) -> None:
    """Write LoRA tensors, with rank and alpha in the header. Raises UserError as `save_lora` does."""
    described = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
    }
    write_tensors(tensors, path, {**described, **metadata})


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with these tensors and this header. Raises UserError as `save_lora` does."""
    from safetensors.torch import save_file

    with atomic_path(Path(path)) as beside:
        save_file({k: v.contiguous() for k, v in tensors.items()}, beside, metadata=dict(metadata))


def read_metadata(path: Path) -> dict[str, str]:
    """The header of a safetensors file that `read_lora` has accepted."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def weight_change(down: torch.Tensor, up: torch.Tensor, scale: float) -> torch.Tensor:
    """What a LoRA layer adds to a weight: scale * up @ down, float32, in the weight's shape."""
    return scale * (up.float().flatten(1) @ down.float().flatten(1)).view(len(up), *down.shape[1:])


def lora_file(path: Path) -> Path:
    """The file of a LoRA that is given as a file, or as a folder that holds exactly one.

    Raises UserError when there is none, when there are several, or when it is a pickle.
    """
    path = Path(path)
    if path.is_dir():
        named = [path / name for name in FOLDER_NAMES if (path / name).is_file()]
        found = named[:1] or sorted(path.glob("[!.]*.safetensors"))
        if len(found) == 1:
            return found[0]
        pickles = sorted(p.name for p in path.iterdir() if p.suffix in _PICKLES)
        what = (
            f"holds {len(found)} LoRA files ({', '.join(p.name for p in found[:3])}, ...)"
            if found
            else f"holds no .safetensors file ({', '.join(pickles)}: a pickle can run code, so it is not opened)"
            if pickles
            else "holds no .safetensors file"
        )
        raise UserError(f"LoRA folder {path} {what}. Give the path of one .safetensors file.")
    if path.suffix.lower() in _PICKLES:
        raise UserError(
            f"LoRA {path} is a {path.suffix} file. Only .safetensors is loaded, because a pickle can run code. Save "
            "the LoRA as .safetensors, or convert it if you trust it."
        )
    if not path.is_file():
        raise UserError(f"LoRA file {path} does not exist. Give the path of a .safetensors file.")
    return path


def lora_mark(path: Path, strength: float) -> str:
    """A LoRA file and its strength, to recognise what depends on both: "<hash of the content> at 0.8"."""
    return f"{sha256(lora_file(path).read_bytes()).hexdigest()[:16]} at {strength:g}"


def read_lora(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a LoRA file.

    Raises UserError when it is missing, not safetensors, or holds no LoRA or more than one (see `refuse_features`).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = lora_file(path)
    try:
        if said := damage(path):
            raise UserError(said)
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Save or copy the LoRA again.") from error
    refuse_features(tensors, path)
    if not any(".lora" in k or "_lora." in k for k in tensors):
        raise UserError(
            f"{path} holds no LoRA weights (first key: {next(iter(tensors), 'none')}). Give a LoRA, not a checkpoint."
        )
    return tensors


def fits_adapter(adapter: Adapter, path: Path) -> bool:
    """Whether a LoRA has exactly the adapter's layers, shapes and alpha, as files of `save_lora` with its settings."""
    own, theirs = lora_tensors(adapter), own_tensors(adapter, path)
    return {k: tuple(v.shape) for k, v in own.items()} == {k: tuple(v.shape) for k, v in theirs.items()} and all(
        math.isclose(float(theirs[k]), float(v), rel_tol=1e-6) for k, v in own.items() if k.endswith(".alpha")
    )


def load_into_adapter(adapter: Adapter, path: Path) -> None:
    """Load a file written by `save_lora` into the adapter, to continue its training.

    Raises UserError when the file is of another model, rank, alpha or choice of targets.
    """
    load_tensors(adapter, own_tensors(adapter, path), str(path))


def load_tensors(
    adapter: Adapter, tensors: Mapping[str, torch.Tensor], path: str, prefixes: Mapping[str, str] | None = None
) -> None:
    """Load the tensors of a LoRA, as `lora_tensors` returns them, into the adapter.

    `path` names the LoRA in error messages. Raises UserError as `load_into_adapter` does.
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
                f"{path} was trained with alpha {float(alpha):g}, but the adapter has {adapter.settings.alpha:g}, "
                f"which would change the LoRA's strength. Set alpha to {float(alpha):g}."
            )
    state.update(tensors)
    adapter.load(state)
