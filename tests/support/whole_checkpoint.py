"""A whole Stable Diffusion or SDXL checkpoint, in the key names of the original code, from a diffusers pipeline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def _renamed(name: str, names: dict[str, str]) -> str:
    """The name with its first part that stands in `names`, as whole words, replaced."""
    for ours, theirs in names.items():
        name = re.sub(rf"(^|\.){re.escape(ours)}(?=\.)", rf"\g<1>{theirs}", name, count=1)
    return name


def unet_names(unet: torch.nn.Module) -> dict[str, str]:
    """Starts of names of blocks, ours to theirs."""
    layers = unet.config.layers_per_block
    found = dict(_UNET)
    for i in range(len(unet.down_blocks)):
        for j in range(layers):
            number = 1 + i * (layers + 1) + j
            found[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{number}.0"
            found[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{number}.1"
        found[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{(i + 1) * (layers + 1)}.0.op"
    for i, block in enumerate(unet.up_blocks):
        for j in range(layers + 1):
            number = i * (layers + 1) + j
            found[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{number}.0"
            found[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{number}.1"
        place = 2 if getattr(block, "attentions", None) else 1
        found[f"up_blocks.{i}.upsamplers.0"] = f"output_blocks.{i * (layers + 1) + layers}.{place}"
    return found


def _unet(unet: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    names = unet_names(unet)
    for name, weight in unet.state_dict().items():
        inside_resnet = ".resnets." in name
        name = _renamed(name, names)
        yield "model.diffusion_model." + (_renamed(name, _RESNET) if inside_resnet else name), weight


def _vae(vae: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    last = len(vae.config.block_out_channels) - 1
    for name, weight in vae.state_dict().items():
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{last - int(m[1])}.block.", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if ".attentions.0." in name:
            name = _renamed(name.replace("mid_block.attentions.0", "mid.attn_1"), _VAE_ATTENTION)
            weight = weight[..., None, None] if weight.ndim == 2 else weight  # theirs are convolutions
        yield "first_stage_model." + name, weight


def _text(encoder: torch.nn.Module, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in encoder.state_dict().items():
        yield f"{prefix}transformer.text_model.{name.removeprefix('text_model.')}", weight


def _open_clip(encoder: torch.nn.Module, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The text part of an open_clip model: q, k and v in one matrix, the projection transposed."""
    weights = {name.removeprefix("text_model."): weight for name, weight in encoder.state_dict().items()}
    yield prefix + "text_projection", weights.pop("text_projection.weight").T
    yield prefix + "token_embedding.weight", weights.pop("embeddings.token_embedding.weight")
    yield prefix + "positional_embedding", weights.pop("embeddings.position_embedding.weight")
    for end in ("weight", "bias"):
        yield f"{prefix}ln_final.{end}", weights.pop(f"final_layer_norm.{end}")
    for layer in range(encoder.config.num_hidden_layers):
        for end in ("weight", "bias"):
            parts = [weights.pop(f"encoder.layers.{layer}.self_attn.{p}_proj.{end}") for p in "qkv"]
            yield f"{prefix}transformer.resblocks.{layer}.attn.in_proj_{end}", torch.cat(parts)
    for name, weight in weights.items():
        if "position_ids" not in name:
            yield prefix + _renamed(name.replace("encoder.layers", "transformer.resblocks"), _OPEN_CLIP), weight


def save_whole(pipe, path: Path) -> None:
    """Write all weights of a StableDiffusionPipeline or StableDiffusionXLPipeline as one checkpoint."""
    found = dict([*_unet(pipe.unet), *_vae(pipe.vae)])
    if getattr(pipe, "text_encoder_2", None) is None:
        found |= _text(pipe.text_encoder, "cond_stage_model.")
    else:
        found |= _text(pipe.text_encoder, "conditioner.embedders.0.")
        found |= _open_clip(pipe.text_encoder_2, "conditioner.embedders.1.model.")
    save_file({name: weight.detach().clone().contiguous() for name, weight in found.items()}, path)
