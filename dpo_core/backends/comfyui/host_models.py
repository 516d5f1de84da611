"""Build MODEL, CLIP and VAE from modules and tensors, without a checkpoint; apply a LoRA as the host does.

Used through `host`.
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
    """A MODEL around an SD-layout UNet: eps prediction, float32, on the host's offload device.

    config: arguments of the host's UNetModel. The keys image_size, in_channels, out_channels, model_channels,
    num_res_blocks, channel_mult, transformer_depth, transformer_depth_output, transformer_depth_middle, context_dim and
    use_spatial_transformer are all required (0.3.64, 0.33); its maps of LoRA keys also need the lists. latent:
    attributes of its latent format. fill(denoiser, names): loads and freezes the weights; `names` maps diffusers names
    to native ones. again: (function, arguments, index) that builds this MODEL again, for hosts that need it (0.33:
    `cached_patcher_init`; without it the host's own trainer refuses the MODEL).
    """
    from comfy import latent_formats, model_base, model_management, model_patcher, supported_models_base, utils

    class Config(supported_models_base.BASE):
        unet_extra_config: dict = {}  # that of the base class would override num_heads
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
    """A CLIP around a CLIP-L text model of any size; its output is the last hidden state after the final norm.

    Prompts are padded on the right with the pad token. config: transformers' CLIPTextConfig as a dict. words: a
    tokenizer class with the methods that the host calls (from_pretrained, get_vocab, call -> {"input_ids"}).
    fill(transformer): loads and freezes the weights.
    """
    from comfy import clip_model, sd, sd1_clip, supported_models_base

    class TextModel(clip_model.CLIPTextModel):
        """Sets the embedding's size, since the host's class always has 49408 rows."""

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
    """A VAE around a module with encode(pixels) and decode(latents), pixels float32 [n, 3, H, W] in -1..1.

    ratio: pixels per latent along one side. features: number of full-size feature maps, for the memory estimate.
    """
    from comfy import model_management, model_patcher, sd

    # The host chooses the architecture by key. The one without weights sets every attribute of a VAE to the host's
    # default, including those that later versions add; the differing ones are set below.
    vae = sd.VAE(sd={"pixel_space_vae": torch.ones(())}, dtype=torch.float32)
    offload = model_management.vae_offload_device()
    vae.first_stage_model = module.to(offload)
    vae.patcher = model_patcher.ModelPatcher(module, load_device=vae.device, offload_device=offload)
    vae.latent_channels, vae.output_channels = latent_channels, channels
    vae.downscale_ratio = vae.upscale_ratio = ratio
    # The module works in -1..1; the host's pictures are clamped to 0..1.
    vae.process_input = lambda image: image * 2 - 1
    # In place, since 0.33 ignores the returned value and 0.3.64 uses it.
    vae.process_output = lambda image: image.add_(1).div_(2).clamp_(0, 1)
    # Bytes per picture.
    vae.memory_used_encode = lambda shape, dtype: features * shape[-2] * shape[-1] * dtype.itemsize
    vae.memory_used_decode = lambda shape, dtype: features * shape[-2] * shape[-1] * ratio**2 * dtype.itemsize
    vae.disable_offload = True  # too small to be worth streaming
    return vae


def with_lora(patcher: Any, tensors: Mapping[str, torch.Tensor], strength: float = 1.0) -> Any:
    """A clone of the MODEL with a LoRA applied as by the host's own loader node."""
    return with_lora_on_both(patcher, None, tensors, strength)[0]


def with_lora_on_both(
    patcher: Any, clip: Any, tensors: Mapping[str, torch.Tensor], strength: float = 1.0
) -> tuple[Any, Any]:
    """Clones of the MODEL and the CLIP (or None) with a LoRA at one strength, as by the host's own loader node."""
    import comfy.sd

    with torch.inference_mode(False):
        return comfy.sd.load_lora_for_models(patcher, clip, dict(tensors), strength, strength)


def checkpoint_model(path: Path) -> Any:
    """The MODEL of a checkpoint file, from the host's own loader and under its memory system.

    Text encoder and VAE are not loaded.
    """
    import comfy.sd

    return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False)[0]
