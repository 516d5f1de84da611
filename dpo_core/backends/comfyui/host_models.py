"""MODEL, CLIP and VAE built from modules and tensors, without a checkpoint; and a LoRA put on as the host does it.

Entries of `host`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn


def unet_model(
    config: Mapping[str, Any],
    latent: Mapping[str, Any],
    fill: Callable[[nn.Module, dict[str, str]], None],
    again: tuple,
) -> Any:
    """A MODEL around an SD-layout UNet, eps prediction, float32, on the host's offload device.

    config: words of the host's UNetModel. Keys image_size, in_channels, out_channels, model_channels, num_res_blocks,
    channel_mult, transformer_depth, transformer_depth_output, transformer_depth_middle, context_dim and
    use_spatial_transformer are all needed (0.3.64, 0.33), the lists by its maps of LoRA keys, too. latent: attributes
    of its latent format. fill(denoiser, names): loads and freezes the weights; `names` are what diffusers calls them.
    again: (function, arguments, place) that build this MODEL once more, for hosts that ask for it (0.33:
    `cached_patcher_init`; without it the host's own trainer refuses the MODEL).
    """
    from comfy import latent_formats, model_base, model_management, model_patcher, supported_models_base, utils

    class Config(supported_models_base.BASE):
        unet_extra_config: dict = {}  # the base's would overrule num_heads
        latent_format = type("Latent", (latent_formats.LatentFormat,), dict(latent))

    settled = Config(dict(config))
    settled.set_inference_dtype(torch.float32, None)
    offload = model_management.unet_offload_device()
    model = model_base.BaseModel(settled, model_type=model_base.ModelType.EPS)
    fill(model.diffusion_model, utils.unet_to_diffusers(settled.unet_config))
    model.eval().to(offload)
    patcher = model_patcher.ModelPatcher(model, load_device=model_management.get_torch_device(), offload_device=offload)
    patcher.cached_patcher_init = again
    return patcher


def text_encoder(
    config: Mapping[str, Any], words: type, tokenizer_path: Any, parameters: int, fill: Callable[[nn.Module], None]
) -> Any:
    """A CLIP around a CLIP-L text model of its own size: last hidden state after the final norm, padded on the right
    with <pad>.

    config: transformers' CLIPTextConfig as a dict. words: a tokenizer class as the host calls one (from_pretrained,
    get_vocab, call -> {"input_ids"}). fill(transformer): loads and freezes the weights.
    """
    from comfy import clip_model, sd, sd1_clip, supported_models_base

    class TextModel(clip_model.CLIPTextModel):
        """The host's has 49408 rows whatever the config says."""

        def __init__(self, config, dtype, device, operations):
            super().__init__(config, dtype, device, operations)
            self.set_input_embeddings(
                operations.Embedding(config["vocab_size"], config["hidden_size"], dtype=dtype, device=device)
            )

    special = {"start": config["bos_token_id"], "end": config["eos_token_id"], "pad": config["pad_token_id"]}
    section = partial(
        sd1_clip.SDTokenizer,
        tokenizer_path=tokenizer_path,
        tokenizer_class=words,
        max_length=config["max_position_embeddings"],
        embedding_size=config["hidden_size"],
        pad_with_end=False,
        pad_token=special["pad"],
    )
    encoder = partial(
        sd1_clip.SDClipModel,
        max_length=config["max_position_embeddings"],
        textmodel_json_config=dict(config),
        special_tokens=special,
        model_class=TextModel,
        return_projected_pooled=False,
    )
    target = supported_models_base.ClipTarget(
        partial(sd1_clip.SD1Tokenizer, tokenizer=section), partial(sd1_clip.SD1ClipModel, clip_model=encoder)
    )
    clip = sd.CLIP(target, parameters=parameters, model_options={"dtype": torch.float32})
    fill(clip.cond_stage_model.clip_l.transformer)
    clip.cond_stage_model.eval().requires_grad_(False)
    return clip


def image_codec(module: nn.Module, latent_channels: int, channels: int, ratio: int, features: int) -> Any:
    """A VAE around a module with encode([n, 3, H, W] in -1..1) and decode(latents) -> the same range, float32.

    ratio: pixels a latent, along one side. features: feature maps at full size at once, for its memory.
    """
    from comfy import model_management, model_patcher, sd

    # The host picks the architecture by key. The one without weights sets every attribute of a VAE to the host's own
    # default, also those that later versions add; what differs is set below.
    vae = sd.VAE(sd={"pixel_space_vae": torch.ones(())}, dtype=torch.float32)
    offload = model_management.vae_offload_device()
    vae.first_stage_model = module.to(offload)
    vae.patcher = model_patcher.ModelPatcher(module, load_device=vae.device, offload_device=offload)
    vae.latent_channels, vae.output_channels = latent_channels, channels
    vae.downscale_ratio = vae.upscale_ratio = ratio
    # The module and the host's pictures both follow the usual ranges: -1..1 inside, 0..1 and clamped outside.
    vae.process_input = lambda image: image * 2 - 1
    # In place: 0.33 calls it for its effect and ignores what it returns, 0.3.64 takes what it returns.
    vae.process_output = lambda image: image.add_(1).div_(2).clamp_(0, 1)
    # Bytes a picture.
    vae.memory_used_encode = lambda shape, dtype: features * shape[-2] * shape[-1] * dtype.itemsize
    vae.memory_used_decode = lambda shape, dtype: features * shape[-2] * shape[-1] * ratio**2 * dtype.itemsize
    vae.disable_offload = True  # too small to be worth streaming
    return vae


def with_lora(patcher: Any, tensors: Mapping[str, torch.Tensor], strength: float = 1.0) -> Any:
    """A clone of the MODEL with a LoRA on it, as the host's own loader node puts it on."""
    import comfy.sd

    with torch.inference_mode(False):
        return comfy.sd.load_lora_for_models(patcher, None, dict(tensors), strength, 0.0)[0]


def checkpoint_model(path: Path) -> Any:
    """The MODEL of a checkpoint file, by the host's own loader and under its own memory system; text encoder and VAE
    are left out.
    """
    import comfy.sd

    return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False)[0]
