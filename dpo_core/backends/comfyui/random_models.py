"""MODELs of random weights for self-tests and measurements: tiny models and full-size checkpoints.

Besides `host_models` and `host_rope` the only module that uses ComfyUI's own model classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..random_weights import write_random_checkpoint
from . import host

TINY_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": [1, 2], "transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1, "context_dim": 128,
    "use_spatial_transformer": True, "num_heads": 4, "num_head_channels": -1,
}  # fmt: skip
TINY_FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 128, "context_in_dim": 128,
    "hidden_size": 64, "mlp_ratio": 4.0, "num_heads": 4, "depth": 1, "depth_single_blocks": 1, "axes_dim": [4, 6, 6],
    "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip
UNETS = {
    "sd15": {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "context_dim": 768, "adm_in_channels": None,
        "use_linear_in_transformer": False, "use_spatial_transformer": True, "legacy": False,
    },
    "sdxl": {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "context_dim": 2048, "adm_in_channels": 2816,
        "num_classes": "sequential", "use_linear_in_transformer": True, "use_spatial_transformer": True,
        "legacy": False,
    },
}  # fmt: skip
"""UNet configurations of the published checkpoints, with the host's keys."""
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
TINY_TEXTS = {"sd": (24, 128, 0), "sdxl": (24, 128, 128), "flux": (24, 128, 128)}
TEXTS = {"sd15": (77, 768, 0), "sdxl": (77, 2048, 1280)}
"""(tokens, width, pooled width) of a prompt, pooled width 0 for none: TINY_TEXTS of tiny models, TEXTS of full size."""


class RandomText:
    """Stand-in for a CLIP: every prompt gets a random embedding, seeded by its first letters.

    text: (tokens, width, pooled width), one of `TINY_TEXTS` or `TEXTS`.
    """

    def __init__(self, text: tuple[int, int, int]) -> None:
        self.tokens, self.width, self.pooled = text

    def tokenize(self, prompt: str) -> str:
        return prompt

    def encode_from_tokens_scheduled(self, prompt: str) -> list[list]:
        draws = torch.Generator().manual_seed(int.from_bytes(prompt.encode()[:7].ljust(7), "little"))
        extras = {"pooled_output": torch.randn(1, self.pooled, generator=draws)} if self.pooled else {}
        return [[torch.randn(1, self.tokens, self.width, generator=draws), extras]]


# --- tiny models ---


def random_weights(module: nn.Module) -> None:
    """Initialise ComfyUI's layers, which are empty: weights preserve the scale of activations, norms are 1."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            weight.data.normal_(0, 1 / math.sqrt(weight[0].numel()), generator=generator)
        elif name.endswith("bias"):
            weight.data.normal_(0, 0.1, generator=generator)
        else:
            weight.data.fill_(1)
    module.eval().requires_grad_(False)


def random_model(
    kind: str = "sd", model_type: str = "EPS", dtype: torch.dtype = torch.float32, compute: torch.dtype | None = None
) -> Any:
    """A tiny MODEL of random weights of `dtype` that computes in `compute` (None: in `dtype`).

    `kind`: "sd", "sdxl" (both UNets with latents [4, h, w], prompts of width 128) or "flux" ([16, h, w]). `model_type`:
    a name of comfy.model_base.ModelType.
    """
    from comfy import latent_formats, model_base, model_management, model_patcher, supported_models_base

    class Config(supported_models_base.BASE):
        unet_extra_config: dict = {}
        latent_format = {"sd": latent_formats.SD15, "sdxl": latent_formats.SDXL, "flux": latent_formats.Flux}[kind]

    described = dict(TINY_FLUX if kind == "flux" else TINY_UNET)
    if kind == "flux" and "txt_ids_dims" in _parameters_of_flux():
        described["txt_ids_dims"] = []  # required by newer hosts, refused by older ones
    if kind == "sdxl":
        # The pooled text (128), and six numbers of size and crop, embedded in 256 each.
        described |= {"adm_in_channels": 128 + 6 * 256, "num_classes": "sequential"}
    config = Config(described)
    config.set_inference_dtype(dtype, compute)
    build = {"sd": model_base.BaseModel, "sdxl": model_base.SDXL, "flux": model_base.Flux}[kind]
    with torch.inference_mode(False):
        model = build(config, model_type=model_base.ModelType[model_type])
        random_weights(model.diffusion_model)
    return model_patcher.ModelPatcher(
        model, model_management.get_torch_device(), model_management.unet_offload_device()
    )


def _parameters_of_flux() -> set[str]:
    from comfy.ldm.flux.model import FluxParams

    return set(FluxParams.__dataclass_fields__)


# --- full size ---


def _configuration(kind: str) -> Any:
    """The host's own configuration of the family."""
    import comfy.supported_models

    family = {"sd15": comfy.supported_models.SD15, "sdxl": comfy.supported_models.SDXL}[kind]
    configuration = family(UNETS[kind])
    configuration.set_inference_dtype(torch.float16, None)
    return configuration


def denoiser_layout(kind: str) -> dict[str, torch.Tensor]:
    """Every tensor of the denoiser ("sd15", "sdxl") by its name in a checkpoint, on the meta device: no memory."""
    configuration = _configuration(kind)
    model = configuration.get_model({}, device="meta")
    return configuration.process_unet_state_dict_for_saving(model.diffusion_model.state_dict())


def checkpoint_layout(kind: str) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint as ComfyUI saves one, on the meta device: denoiser, text encoders and VAE."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    configuration = _configuration(kind)
    with torch.device("meta"):
        text = configuration.clip_target().clip(device="meta", dtype=torch.float16)
        vae = AutoencoderKL(ddconfig=VAE, embed_dim=4)
    # BaseModel.state_dict_for_saving is not used: it expects the denoiser's tensors since 0.33, its own before.
    return {
        **denoiser_layout(kind),
        **configuration.process_clip_state_dict_for_saving(text.state_dict()),
        **configuration.process_vae_state_dict_for_saving(vae.state_dict()),
    }


def write_checkpoint(kind: str, path: Path) -> None:
    """Write a whole checkpoint of `kind` ("sd15": 2.1 GB, "sdxl": 6.9 GB), which Load Checkpoint can read."""
    write_random_checkpoint(checkpoint_layout(kind), path)


def write_denoiser(kind: str, path: Path) -> None:
    """Write the denoiser part of such a checkpoint ("sd15": 1.7 GB, "sdxl": 5.1 GB)."""
    write_random_checkpoint(denoiser_layout(kind), path)


def lora_layers(kind: str) -> Mapping[str, torch.Size]:
    """Weight shape of every layer of the UNet, by kohya name."""
    model = _configuration(kind).get_model({}, device="meta")
    shapes = {name.removesuffix(".weight"): tensor.shape for name, tensor in model.diffusion_model.state_dict().items()}
    return {
        "lora_unet_" + theirs.replace(".", "_"): shapes[ours]
        for ours, theirs in host.unet_names(model).items()
        if ours in shapes
    }
