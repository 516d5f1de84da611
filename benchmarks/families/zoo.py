"""Tiny random MODELs of ComfyUI's architectures, by its own classes, with stand-ins for their CLIP and VAE.

zoo.json names, for each architecture, the class in comfy.supported_models, the configuration, and the shape of an
encoded prompt. The stand-in CLIP gives random embeddings of that shape, a different length for each prompt where the
real text encoder does not pad. Must run in a process that can import ComfyUI.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

ZOO: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


class NotHere(Exception):
    """This ComfyUI has no such class."""


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _seed_of(prompt: str) -> int:
    return int(hashlib.sha256(prompt.encode()).hexdigest()[:8], 16)


def _length(prompt: str) -> int:
    """Tokens of a prompt, where they are not padded: differs between prompts."""
    return 4 + 3 * len(prompt.split()) + len(prompt) % 3


def _value(spec: Any, prompt: str, tokens: int, seed: int) -> Any:
    """A tensor by its description in zoo.json, such as {"normal": [1, 768]}; "n" stands for the number of tokens."""
    if not isinstance(spec, dict):
        return spec
    kind, shape = next(iter(spec.items()))
    if kind == "value":
        return torch.tensor(shape)
    shape = [{"n": tokens, "n+2": tokens + 2}.get(size, size) for size in shape]
    if kind == "normal":
        return torch.randn(shape, generator=_generator(seed))
    if kind == "ints":
        return torch.randint(0, 1000, shape, generator=_generator(seed))
    if kind == "padded":
        return (torch.arange(shape[-1])[None] < _length(prompt)).long()
    return torch.zeros(shape) if kind == "zeros" else torch.ones(shape, dtype=None if "float" in spec else torch.long)


class _Parts(nn.Module):
    """Stands for the weights of a CLIP or VAE."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(2))


class _Patcher:
    """What a fingerprint reads of a CLIP's or VAE's patcher."""

    def __init__(self) -> None:
        self.model, self.patches, self.backup, self.model_options = _Parts(), {}, {}, {}
        self.object_patches: dict = {}


class StandInCLIP:
    """Random embeddings [1, tokens, width] and extras, the same for the same prompt."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec, self.patcher, self.layer_idx = spec, _Patcher(), None

    def tokenize(self, prompt: str) -> str:
        return prompt

    def encode_from_tokens_scheduled(self, prompt: str) -> list[list]:
        tokens = self.spec["tokens"] or _length(prompt)
        seed = _seed_of(prompt)
        width = torch.randn(1, tokens, self.spec["width"], generator=_generator(seed))
        extras = self.spec["extras"].items()
        return [[width, {k: _value(v, prompt, tokens, seed + i) for i, (k, v) in enumerate(extras, 1)}]]


class StandInVAE:
    """Knows its factor alone: nothing is decoded."""

    def __init__(self, factor: int) -> None:
        self.factor, self.patcher = factor, _Patcher()

    def spacial_compression_encode(self) -> int:
        return self.factor


def _randomize(module: nn.Module) -> None:
    """Weights that keep the size of activations, as those of a trained model do."""
    draws = _generator(1)
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            weight.data.copy_(torch.randn(weight.shape, generator=draws) / math.sqrt(max(1, weight[0].numel())))
        elif name.endswith("bias"):
            weight.data.copy_(0.1 * torch.randn(weight.shape, generator=draws))
        else:
            weight.data.fill_(1)
    for name, buffer in module.named_buffers():
        if name.endswith("pos_embed"):  # a weight that SD3 holds as a buffer
            buffer.data.copy_(0.1 * torch.randn(buffer.shape, generator=draws))
        elif buffer.is_floating_point() and not torch.isfinite(buffer).all():
            buffer.data.zero_()
    module.eval().requires_grad_(False)


def _config(spec: dict[str, Any], **changed: Any) -> tuple[type, dict[str, Any]]:
    import comfy.supported_models

    kind = getattr(comfy.supported_models, spec["class"], None)
    if kind is None:
        raise NotHere(f"this ComfyUI has no {spec['class']}")
    if "class_config" in spec:
        kind = type(kind.__name__, (kind,), {"unet_extra_config": spec["class_config"]})
    config = {k: torch.float32 if v == "torch.float32" else v for k, v in (spec["config"] | changed).items()}
    return kind, config


def build(name: str, **changed: Any) -> tuple[Any, StandInCLIP, StandInVAE, int]:
    """(MODEL, CLIP, VAE, side of a picture in pixels) of an architecture. Raises NotHere.

    changed: values of the configuration in place of zoo.json's.
    """
    import comfy.model_management as management
    from comfy.model_patcher import ModelPatcher

    spec = ZOO[name]
    kind, config = _config(spec, **changed)
    marks = {key: _value(value, "", 0, 0) for key, value in spec.get("marks", {}).items()}
    for optional in ("", "txt_ids_dims", "ops_bias"):  # older hosts refuse keys that they do not know
        config.pop(optional, None)
        with torch.inference_mode(False):
            settled = kind(dict(config))
            settled.set_inference_dtype(torch.float32, None)
            try:
                model = settled.get_model(dict(marks), "")
                break
            except TypeError as error:
                if "unexpected keyword argument" not in str(error):
                    raise
    else:
        raise NotHere(f"this ComfyUI's {spec['class']} takes other settings")
    _randomize(model.diffusion_model)
    patcher = ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())
    factor = 1 if spec.get("pixel") else 8
    return patcher, StandInCLIP(spec["prompt"]), StandInVAE(factor), spec.get("side", 64 if factor == 1 else 128)


def quantize(name: str, patcher: Any, form: str) -> tuple[Any, int]:
    """The MODEL of `build` with linear weights of its blocks in a quantized format, and how many they are.

    form: a name of comfy.quant_ops.QUANT_ALGOS. Loaded as ComfyUI loads such a file. Raises NotHere.
    """
    import comfy.model_management as management
    from comfy.model_patcher import ModelPatcher

    try:
        from comfy import quant_ops
    except ImportError as error:
        raise NotHere("this ComfyUI has no quantized weights") from error
    if form not in getattr(quant_ops, "QUANT_ALGOS", {}):
        raise NotHere(f"this ComfyUI has no weights of type {form}")
    layout, kind, config = quant_ops.QUANT_ALGOS[form]["comfy_tensor_layout"], *_config(ZOO[name])
    mark = torch.tensor(list(json.dumps({"format": form}).encode()), dtype=torch.uint8)
    weights, count = {}, 0
    with torch.inference_mode(False):
        for key, weight in patcher.model.diffusion_model.state_dict().items():
            inside = key.endswith(".weight") and any(part.isdigit() for part in key.split("."))
            if not inside or weight.ndim != 2 or any(size % 32 for size in weight.shape):
                weights[key] = weight
                continue
            try:
                weights |= quant_ops.QuantizedTensor.from_float(weight, layout).state_dict(key)
            except ValueError:  # a size that the format does not take
                weights[key] = weight
                continue
            weights[key.removesuffix("weight") + "comfy_quant"] = mark
            count += 1
        settled = kind(dict(config))
        settled.quant_config = {"mixed_ops": True}
        settled.set_inference_dtype(torch.float32, torch.float32)
        model = settled.get_model({}, "")
        model.diffusion_model.load_state_dict(weights)
        model.diffusion_model.eval().requires_grad_(False)
    return ModelPatcher(model, management.get_torch_device(), management.unet_offload_device()), count
