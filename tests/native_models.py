"""What tests of the native backend share: tiny random MODELs of several kinds, and looks at what hangs on a MODEL.

Imports comfy inside its functions only: the tests ask for the `comfyui` fixture first.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from dreambooth_dpo.dpo_core.adapter import Adapter
from dreambooth_dpo.dpo_core.backends.comfyui import LiveAdapter
from dreambooth_dpo.dpo_core.settings import AdapterSettings, SamplingSettings

PROMPTS = [
    "a red robot on the grass",
    "a blue bear in the snow, wearing a pink hat",
    "a photo of a green bottle",
    "a yellow robot at night",
]
LONG = " ".join(["red"] * 20 + ["blue"] * 10)
"""Two sections of the toybox's text encoder."""
DRAWING = SamplingSettings(steps=4, guidance=3.0, width=64, height=64)
ADAPTER = AdapterSettings(rank=4, alpha=2.0)
_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 128,
    "use_spatial_transformer": True,
    "num_heads": 4,
    "num_head_channels": -1,
}
_FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 128,
    "context_in_dim": 128,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 4,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [4, 6, 6],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_weights(module: nn.Module) -> None:
    """ComfyUI's layers are not initialised. Weights that keep the size of what goes through, norms at one."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            weight.data.normal_(0, 1 / math.sqrt(weight[0].numel()), generator=generator)
        elif name.endswith("bias"):
            weight.data.normal_(0, 0.1, generator=generator)
        else:
            weight.data.fill_(1)
    module.eval().requires_grad_(False)


def random_model(kind: str = "sd", model_type: str = "EPS", dtype: torch.dtype = torch.float32, compute: torch.dtype | None = None) -> Any:
    """A MODEL of random weights of `dtype`, that computes in `compute` if that is another. `kind`: "sd", "sdxl" (both UNets with latents [4, h, w], prompts of width 128) or "flux" ([16, h, w]).

    `model_type`: a name of comfy.model_base.ModelType.
    """
    from comfy import latent_formats, model_base, model_management, model_patcher, supported_models_base

    class Config(supported_models_base.BASE):
        unet_extra_config: dict = {}
        latent_format = {"sd": latent_formats.SD15, "sdxl": latent_formats.SDXL, "flux": latent_formats.Flux}[kind]

    described = dict(_FLUX if kind == "flux" else _UNET)
    if kind == "flux" and "txt_ids_dims" in _parameters_of_flux():
        described["txt_ids_dims"] = []  # newer hosts want it, older ones refuse it
    if kind == "sdxl":
        # The pooled text (128), and six numbers of size and crop in 256 each.
        described |= {"adm_in_channels": 128 + 6 * 256, "num_classes": "sequential"}
    config = Config(described)
    config.set_inference_dtype(dtype, compute)
    build = {"sd": model_base.BaseModel, "sdxl": model_base.SDXL, "flux": model_base.Flux}[kind]
    with torch.inference_mode(False):
        model = build(config, model_type=model_base.ModelType[model_type])
        random_weights(model.diffusion_model)
    return model_patcher.ModelPatcher(model, model_management.get_torch_device(), model_management.unet_offload_device())


def _parameters_of_flux() -> set[str]:
    from comfy.ldm.flux.model import FluxParams

    return set(FluxParams.__dataclass_fields__)


def adapter_state(adapter: Adapter, scale: float = 0.05) -> dict[str, torch.Tensor]:
    """The adapter's weights with B drawn at random: it changes what the model says."""
    generator = torch.Generator().manual_seed(9)
    state = adapter.state()
    return {k: v.normal_(0, scale, generator=generator) if k.endswith("up") else v for k, v in state.items()}


def random_live(model: Any, settings: AdapterSettings = ADAPTER) -> LiveAdapter:
    with torch.inference_mode(False):
        return LiveAdapter(adapter_state(Adapter(model.model.diffusion_model, settings)), settings)


def left_behind(model: Any) -> list[str]:
    """Modules of a MODEL that carry a hook or a forward of their own."""
    marks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [n for n, m in model.model.named_modules() if "forward" in vars(m) or any(len(getattr(m, mark)) for mark in marks)]


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Equal bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def furthest(left: torch.Tensor, right: torch.Tensor) -> float:
    assert left.shape == right.shape
    return float((left - right).abs().max())
