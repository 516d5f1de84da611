"""The layers of a LoRA file with their strength, whichever tool wrote it; more than a LoRA is refused by name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import UserError

HEADER_CONFIG = "lora_adapter_metadata"
"""Name in a file's header under which diffusers keeps the PEFT config of each component, as JSON."""
PEFT_PREFIX, PEFT_CONFIG = "base_model.model.", "adapter_config.json"
_MATRIX = re.compile(r"^(.+?)(?:\.lora_linear_layer\.|\.lora\.|_lora\.|\.lora_)(down|up|A|B)(?:\.\w+)?\.weight$")
_ALPHA = re.compile(r"^(.+?)(?:\.lora_linear_layer|\.lora|_lora)?\.alpha$")
_FEATURES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\.dora_scale$|lora_magnitude_vector", "DoRA (dora_scale)"),
        (r"\.hada_", "LoHa"),
        (r"\.lokr_", "LoKr"),
        (r"\.lora_mid\.", "LoCon with Tucker decomposition (lora_mid)"),
        (r"[._]b?oft_", "OFT"),
        (r"\.(a1|a2|b1|b2|bm1|bm2)\.weight$", "GLoRA"),
        (r"\.on_input$", "IA3"),
        (r"\.(diff|diff_b|w_norm|b_norm|set_weight)$", "changes of full weights (.diff)"),
        (r"^bundle_emb\.|string_to_param|^emb_params$|^clip_[lg]$", "embeddings of textual inversion"),
        (r"\.lora_(B|up)(\.\w+)?\.bias$|\.lora\.up\.bias$", "biases (lora_bias)"),
        (r"^lora_controlnet$", "Control-LoRA"),
    )
)
_OTHER_STARTS = ("pissa", "olora", "corda", "loftq")
"""Initialisations of PEFT that change the base weights too, so that the file alone is not the LoRA."""


@dataclass(frozen=True, eq=False)
class LoraLayer:
    """One layer of a LoRA file. name: as the file writes it. It adds scale * up @ down to a weight."""

    name: str
    down: torch.Tensor
    up: torch.Tensor
    scale: float


def refuse_features(tensors: Mapping[str, object], path: Path) -> None:
    """Raises UserError that names what the file holds besides plain LoRA layers, if it is a known feature."""
    for pattern, feature in _FEATURES:
        found = [key for key in tensors if pattern.search(key)]
        if found:
            raise UserError(
                f"{path} holds {feature}: {len(found)} of its {len(tensors)} tensors (first: {found[0]}), which would "
                "be left out. Only plain LoRA layers are loaded. Merge the file into the model with the tool that "
                "made it, or train and save a plain LoRA."
            )


def layer_name(key: str) -> str:
    """The layer of a matrix by its key: "unet.x.processor.to_q_lora.down.weight" -> "unet.x.processor.to_q"."""
    match = _MATRIX.match(key)
    return match[1] if match else key


def lora_layers(tensors: Mapping[str, torch.Tensor], header: Mapping[str, str], path: Path) -> list[LoraLayer]:
    """The layers of a LoRA file, in its order.

    Keys of kohya, diffusers (new and old) and PEFT are read. The strength of a layer is alpha / rank, with alpha from
    the tensors, from diffusers' header, or from PEFT's adapter_config.json beside the file; without any it is 1, as in
    diffusers. `header`: the file's metadata. Raises UserError for another feature, an unknown key, a layer without its
    other half, values that are not finite, and PEFT keys without their config.
    """
    refuse_features(tensors, path)
    halves: dict[str, dict[str, torch.Tensor]] = {}
    alphas: dict[str, float] = {}
    unknown = []
    for key, tensor in tensors.items():
        if match := _MATRIX.match(key):
            halves.setdefault(match[1], {})["down" if match[2] in ("down", "A") else "up"] = tensor
        elif match := _ALPHA.match(key):
            if tensor.numel() != 1 or not torch.isfinite(tensor).all():
                raise UserError(
                    f"{path}: {key} holds {tensor.flatten()[:3].tolist()} (shape {list(tensor.shape)}), but alpha is "
                    "one finite number. Save or download the LoRA again."
                )
            alphas[match[1]] = float(tensor)
        else:
            unknown.append(key)
    unknown += [f"{name}.alpha" for name in alphas if name not in halves]
    if unknown:
        raise UserError(
            f"{path} holds {len(unknown)} tensors that belong to no LoRA layer (first: {', '.join(unknown[:3])}), "
            "which would be left out. Give a plain LoRA."
        )
    configs = _configs(header, halves, path)
    return [_layer(name, pair, alphas.get(name), configs, path) for name, pair in halves.items()]


def _layer(
    name: str, pair: Mapping[str, torch.Tensor], alpha: float | None, configs: Mapping[str, Mapping], path: Path
) -> LoraLayer:
    if len(pair) < 2:
        only = next(iter(pair))
        raise UserError(f"{path}: layer {name} has only its {only} matrix. Save or download the LoRA again.")
    down, up = pair["down"], pair["up"]
    if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
        raise UserError(f"{path}: layer {name} holds NaN or infinite values. Its training failed; give another LoRA.")
    if down.ndim < 2 or up.ndim < 2 or not len(down):
        raise UserError(
            f"{path}: layer {name} has matrices of the shapes {list(down.shape)} (down) and {list(up.shape)} (up), but "
            "a LoRA's have two dimensions or more. Save or download the LoRA again."
        )
    rank = len(down)
    part = next((p for p in configs if name.startswith(p)), None)
    scale = 1.0 if alpha is None else alpha / rank
    if part is not None:
        said = _config_scale(configs[part], name.removeprefix(part), rank, path)
        if alpha is not None and not math.isclose(said, scale, rel_tol=1e-6):
            raise UserError(
                f"{path}: layer {name} has strength {scale:g} by its alpha and {said:g} by the config in the header. "
                "Save the LoRA again with one of them."
            )
        scale = said
    return LoraLayer(name, down, up, scale)


def _configs(header: Mapping[str, str], names: Mapping[str, object], path: Path) -> dict[str, dict]:
    """PEFT configs by the prefix of the layers that they are for. Raises UserError for an unreadable or missing one."""
    if any(name.startswith(PEFT_PREFIX) for name in names):
        beside = Path(path).with_name(PEFT_CONFIG)
        if not beside.is_file():
            raise UserError(
                f"{path} has PEFT's own keys ({PEFT_PREFIX}...), but {PEFT_CONFIG}, which holds its strength, is not "
                "beside it. Put the file there, or save the LoRA with pipeline.save_lora_weights()."
            )
        return {PEFT_PREFIX: _json_object(beside.read_text(encoding="utf-8"), str(beside))}
    if HEADER_CONFIG not in header:
        return {}
    found: dict[str, dict] = {}
    for key, value in _json_object(header[HEADER_CONFIG], f"{HEADER_CONFIG} in the header of {path}").items():
        part, _, setting = key.partition(".")
        found.setdefault(part + ".", {})[setting] = value
    return found


def _json_object(text: str, what: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON ({error}). Save the LoRA again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{what} is not a JSON object. Save the LoRA again.")
    return value


def _config_scale(config: Mapping, layer: str, rank: int, path: Path) -> float:
    """alpha / rank of a layer (alpha / sqrt(rank) with rsLoRA) by a PEFT config. Raises UserError as `lora_layers`."""
    if config.get("use_dora"):
        raise UserError(f"{path} holds DoRA (use_dora in its config). Train and save a plain LoRA.")
    if str(config.get("init_lora_weights", "")).lower().startswith(_OTHER_STARTS):
        raise UserError(
            f"{path} was started by {config['init_lora_weights']}, which changes the base model's weights too. Convert "
            "it to a plain LoRA with PEFT (path_initial_model_for_weight_conversion)."
        )
    alpha = _by_pattern(config.get("alpha_pattern"), layer, config.get("lora_alpha", 8))
    r = _by_pattern(config.get("rank_pattern"), layer, config.get("r", rank))
    if r != rank:
        raise UserError(f"{path}: layer {layer} has rank {rank}, but its config says {r}. Save the LoRA again.")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping | None, layer: str, default: float) -> float:
    """The value of the first pattern that matches the end of a layer's name, as PEFT looks it up."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            return value
    return default
