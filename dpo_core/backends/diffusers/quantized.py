"""A frozen base with quantized weights: quantized after loading, or loaded from a folder that is quantized already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ...errors import UserError
from ...hashing import update_with_tensor

SOURCE = "dreambooth_dpo_quantized_from"
"""Attribute of a denoiser that was quantized here: (name of the quantization, hash of the weights before)."""
DENOISERS = ("transformer", "unet")
NEEDS_GPU_TO_LOAD = ("bnb-nf4",)
"""Quantizations that diffusers loads from quantized files on a GPU alone. They are made and computed on a CPU too."""
_WEIGHT_ONLY = ("Int8WeightOnlyConfig", "Float8WeightOnlyConfig")
"""torchao's configs whose layers compute with unrounded inputs, so that gradients can be checked."""


class Kind(NamedTuple):
    """A quantization: its package, that package's oldest version for diffusers, and devices that cannot compute it."""

    package: str
    oldest: tuple[int, int]
    not_on: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "bnb-nf4": Kind("bitsandbytes", (0, 44)),
    "torchao-int8": Kind("torchao", (0, 15)),
    "torchao-fp8": Kind("torchao", (0, 15), ("mps",)),
}
"""By the name in `model.quantize`."""


def check_quantize(kind: str, device: str, setting: str = "model.quantize") -> None:
    """Raises UserError when the package of a quantization is missing or too old, or the device cannot compute it."""
    package, oldest, not_on = KINDS[kind]
    needed = ".".join(map(str, oldest))
    try:
        found = version(package)
    except PackageNotFoundError as error:
        raise UserError(
            f"{setting} is {kind}, which needs the package {package}: pip install {package} (or leave the setting out)."
        ) from error
    if _numbers(found) < oldest:
        raise UserError(
            f"{setting} is {kind}, which needs {package} {needed} or newer, and {found} is installed: "
            f"pip install -U {package}."
        )
    if (name := torch.device(device).type) in not_on:
        others = ", ".join(other for other in KINDS if name not in KINDS[other].not_on)
        raise UserError(f"{setting} is {kind}, which {name} cannot compute. Use {others}, or leave the setting out.")


def _numbers(text: str) -> tuple[int, int]:
    """ "0.50.2" -> (0, 50)."""
    major, minor = ([*text.split("."), "0", "0"])[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


# --- quantizing ---


def quantize(denoiser: nn.Module, kind: str, device: torch.device) -> None:
    """Quantize the linear layers of a denoiser in place, each on `device`; its other weights stay where they are.

    The steps are those of diffusers' own quantizer in `from_pretrained(quantization_config=...)`, on weights that are
    in memory already, so that LoRAs can be merged before. The layers compute in the denoiser's dtype. Call
    `check_quantize` first.
    """
    from diffusers.quantizers.auto import DiffusersAutoQuantizer

    setattr(denoiser, SOURCE, (kind, _hash(denoiser)))
    quantizer = DiffusersAutoQuantizer.from_config(_config(kind, denoiser.dtype), pre_quantized=False)
    if kind != "bnb-nf4" or device.type != "cpu":  # diffusers asks for a GPU; bitsandbytes computes on CPUs too
        quantizer.validate_environment(torch_dtype=denoiser.dtype, device_map=None)
    own = {f"{name}.{end}": tensor for name, end, tensor in _linear_weights(denoiser)}
    with torch.no_grad():
        quantizer.preprocess_model(denoiser, device_map=None, keep_in_fp32_modules=[])
        for name in list(own):
            tensor = own.pop(name)  # the unquantized weight goes with its turn
            if quantizer.check_if_quantized_param(denoiser, tensor, name, {}):
                quantizer.create_quantized_param(denoiser, tensor, name, device, {}, [])
    quantizer.postprocess_model(denoiser)
    denoiser.hf_quantizer = quantizer
    denoiser.requires_grad_(False)
    keep_layout(denoiser)


def _linear_weights(denoiser: nn.Module) -> Iterator[tuple[str, str, torch.Tensor]]:
    """(layer, "weight" or "bias", tensor) of the linear layers."""
    for name, module in denoiser.named_modules():
        if isinstance(module, nn.Linear):
            yield from ((name, end, tensor.data) for end, tensor in module.named_parameters(recurse=False))


def _config(kind: str, dtype: torch.dtype) -> Any:
    """diffusers' config of a quantization."""
    if kind == "bnb-nf4":
        from diffusers import BitsAndBytesConfig

        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    from diffusers import TorchAoConfig
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return TorchAoConfig({"torchao-int8": Int8WeightOnlyConfig, "torchao-fp8": Float8WeightOnlyConfig}[kind]())


def keep_layout(denoiser: nn.Module) -> None:
    """Keep bitsandbytes from changing the layout of its weights on a CPU with AVX512-BF16.

    It would do so in the first forward without gradients, and later forwards would have none.
    """
    for module in denoiser.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, weight in module.named_parameters():
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        update_with_tensor(digest, weight.float())
    return digest.hexdigest()[:16]


# --- what is quantized ---


def is_quantized(module: nn.Module) -> bool:
    return bool(getattr(module, "is_quantized", False))


def quantization_of(module: nn.Module) -> str:
    """Name of a model's quantization, as a run folder keeps it; "none" without."""
    if source := getattr(module, SOURCE, None):
        return source[0]
    config = getattr(getattr(module, "hf_quantizer", None), "quantization_config", None)
    return "none" if config is None else _name(config.to_dict())


def _name(config: Mapping[str, Any]) -> str:
    """ "bitsandbytes nf4", "torchao Int8WeightOnlyConfig": a config as JSON, in words."""
    method = config.get("quant_method")
    method = str(getattr(method, "value", method))
    if method == "bitsandbytes":
        return "bitsandbytes " + ("int8" if config.get("load_in_8bit") else str(config.get("bnb_4bit_quant_type")))
    if method == "torchao":
        kind = config.get("quant_type")
        kind = kind.get("default") if isinstance(kind, Mapping) else kind
        return f"torchao {kind.get('_type') if isinstance(kind, Mapping) else kind}"
    return method


def raw_parts(weight: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that a weight is stored as: codes and scales where it is quantized, else itself."""
    if (state := getattr(weight, "quant_state", None)) is not None:  # bitsandbytes
        scales = [state.absmax, *([state.state2.absmax, state.offset] if state.nested else [])]
        return [weight.detach().as_subclass(torch.Tensor), *scales]
    if (flatten := getattr(weight, "__tensor_flatten__", None)) is not None:  # torchao
        return [part for name in flatten()[0] for part in raw_parts(getattr(weight, name))]
    return [weight]


# --- folders that are quantized already ---


def stored_quantization(folder: Path, device: str | None = None) -> str | None:
    """Name of the quantization that a diffusers folder's denoiser is stored in; None without. Reads small files only.

    Raises UserError by name for one that is not trained, for other parts that are quantized, for a missing package
    and, with `device`, where it cannot be computed.
    """
    found = {part.parent.name: config for part in sorted(folder.glob("*/config.json")) if (config := _stored(part))}
    other = [part for part in found if part not in DENOISERS]
    if other:
        raise UserError(
            f"model folder {folder} cannot be loaded: its {other[0]} is quantized ({_name(found[other[0]])}), and only "
            "a quantized denoiser is loaded. Put the unquantized folder of that part there."
        )
    for part, config in found.items():
        name = _name(config)
        kind = _trained(name)
        if kind is None:
            raise UserError(
                f"model folder {folder} cannot be loaded: its {part} is quantized by {name}, which is not trained here "
                "(bitsandbytes nf4 and fp4, torchao's Int8WeightOnlyConfig and Float8WeightOnlyConfig are). Give the "
                f"unquantized model, and set model.quantize to {', '.join(KINDS)}."
            )
        check_quantize(kind, device or "cpu", f"the quantization of {folder / part}")
        if kind in NEEDS_GPU_TO_LOAD and device is not None and torch.device(device).type == "cpu":
            raise UserError(
                f"model folder {folder} is quantized by {name}, which diffusers loads on a GPU alone, and the device "
                "is the CPU. Give the unquantized model, and set model.quantize to bnb-nf4."
            )
        return name
    return None


def _stored(path: Path) -> Mapping[str, Any] | None:
    """The quantization in a part's config.json; None without, or for a file that others refuse."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = config.get("quantization_config") if isinstance(config, dict) else None
    return found if isinstance(found, Mapping) else None


def _trained(name: str) -> str | None:
    """The kind that a stored quantization is like, if it is trained."""
    if name in ("bitsandbytes nf4", "bitsandbytes fp4"):
        return "bnb-nf4"
    return next(
        (k for k, c in zip(("torchao-int8", "torchao-fp8"), _WEIGHT_ONLY, strict=True) if name.endswith(c)), None
    )
