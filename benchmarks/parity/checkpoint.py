"""One tiny checkpoint in both programs: ComfyUI's MODEL, CLIP and VAE, and a pipeline of diffusers.

The denoiser's weights are ComfyUI's, which diffusers' own converter turns into its layout. The VAE's go the way of the
published files: from diffusers' layout to ComfyUI's by ComfyUI, or back by diffusers for a VAE of videos. Text encoders
have no tiny size in ComfyUI: the stand-in of benchmarks/families gives both sides the same embeddings. Must run in a
process that can import ComfyUI.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from inspect import signature
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from ..families.zoo import StandInCLIP, build
from ..lora_loaders import in_diffusers
from ..lora_loaders.hosted import SIZES
from ..pipelines.tiny import tokenizer
from .families import FAMILIES, Family


class StandInTokenizer:
    """A tokenizer whose only token of a prompt is the prompt's place in `known`."""

    model_max_length = 77

    def __init__(self) -> None:
        self.known: list[str] = []

    def __call__(self, prompt: str, **_: Any) -> SimpleNamespace:
        """input_ids: int64 [1, 1]."""
        if prompt not in self.known:
            self.known.append(prompt)
        return SimpleNamespace(input_ids=torch.tensor([[self.known.index(prompt)]]))


class StandInText(nn.Module):
    """The embeddings of `StandInCLIP` for diffusers: as a text encoder, and as a pipeline's `encode_prompt`."""

    def __init__(self, clip: StandInCLIP, family: Family, tokens: StandInTokenizer) -> None:
        super().__init__()
        self.clip, self.family, self.tokens, self.config = clip, family, tokens, {}
        self.device = torch.device("cpu")

    def encode_prompt(self, prompt: list[str], **_: Any) -> tuple:
        """What the pipeline's own `encode_prompt` returns, for one prompt."""
        tensor, extras = self.clip.encode_from_tokens_scheduled(prompt[0])[0]
        return self.family.embeds(tensor, extras)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor]:
        """Embedding [1, tokens, width] of the ids int64 [1, 1] of the tokenizer."""
        return self.encode_prompt([self.tokens.known[int(ids)]])


_ABSENT = (
    "text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder", "safety_checker", "feature_extractor",
)  # fmt: skip


class Both(SimpleNamespace):
    """patcher, clip, vae of ComfyUI; pipe of diffusers."""


def held_by_both(name: str) -> Both:
    """The tiny checkpoint of a family in both programs.

    Raises NotHere where this ComfyUI lacks it, ValueError where diffusers' converter leaves a weight without partner.
    """
    import diffusers

    family = FAMILIES[name]
    patcher, clip, _, _ = build(name, **{**SIZES.get(name, {}), **family.native})
    _keep_size(patcher.model.diffusion_model)
    theirs = in_diffusers.FAMILIES[family.like or name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        denoiser = getattr(diffusers, theirs.model)(**{**theirs.config, **family.config})
        vae, hosted = _vae(family)
    _fit_time_embedding(denoiser)
    weights = {k: v.detach().clone() for k, v in patcher.model.diffusion_model.state_dict().items()}
    load_all(denoiser, in_diffusers.converted(theirs, weights, denoiser.config))
    return Both(patcher=patcher, clip=clip, vae=hosted, pipe=_pipeline(family, denoiser, vae, clip))


def _keep_size(denoiser: nn.Module) -> None:
    """Krea 2's norms multiply by 1 + scale; the zoo's scale of 1 would double activations, and rounding with them."""
    if type(denoiser).__name__ == "SingleStreamDiT":
        for name, weight in denoiser.named_parameters():
            if name.endswith(".scale"):
                weight.data.zero_()


def _fit_time_embedding(denoiser: nn.Module) -> None:
    """diffusers has the width of Z-Image's time embedding written in, as that of the published model."""
    if type(denoiser).__name__ == "ZImageTransformer2DModel":
        from diffusers.models.transformers.transformer_z_image import TimestepEmbedder

        dim = denoiser.config.dim
        denoiser.t_embedder = TimestepEmbedder(min(dim, 256), mid_size=min(dim, 1024))


def load_all(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load every weight. Raises ValueError where one is missing, is not known or has another size."""
    known = model.state_dict()
    wrong = sorted(k for k in known.keys() | weights.keys() if k not in known or k not in weights)
    wrong += sorted(k for k in known.keys() & weights.keys() if known[k].shape != weights[k].shape)
    if wrong:
        raise ValueError(
            f"{len(wrong)} weights of the checkpoint do not fit diffusers' {type(model).__name__}: {wrong[:4]}"
        )
    model.load_state_dict(weights)


def _vae(family: Family) -> tuple[nn.Module, Any]:
    """(diffusers' VAE with random weights, ComfyUI's of the same ones).

    Without encoder weights in ComfyUI, which takes any width of a decoder, but only the published one of an encoder.
    """
    import diffusers

    kind, settings = family.vae
    made = getattr(diffusers, kind)
    if kind == "AutoencoderKLQwenImage":
        return _vae_of_videos(made(**settings), settings)
    vae = made(
        block_out_channels=(32, 64, 128, 128), layers_per_block=2, **settings,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    if hasattr(vae, "bn"):
        vae.bn.running_mean.uniform_(-0.5, 0.5)
        vae.bn.running_var.uniform_(0.5, 1.5)
    return vae, _hosted({k: v for k, v in vae.state_dict().items() if not k.startswith(("encoder.", "quant_conv."))})


def _vae_of_videos(vae: nn.Module, settings: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    import comfy.ldm.wan.vae
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    with torch.inference_mode(False):
        native = comfy.ldm.wan.vae.WanVAE(
            dim=settings["base_dim"], z_dim=settings["z_dim"], dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
            temperal_downsample=[False, True, True],
        )  # fmt: skip
    for weight in native.parameters():
        fan = weight[0].numel() if weight.ndim > 1 else 0
        weight.data = torch.randn(weight.shape) / fan**0.5 if fan else torch.ones_like(weight)
    for name, weight in native.named_parameters():
        if name.endswith("bias"):
            weight.data.zero_()
    weights = native.state_dict()
    load_all(vae, convert_wan_vae_to_diffusers({k: v.clone() for k, v in weights.items()}))
    return vae, _hosted(weights)


def _hosted(weights: Mapping[str, torch.Tensor]) -> Any:
    """ComfyUI's VAE of these weights. ComfyUI warns of missing ones, here those of the encoder."""
    import comfy.sd

    logging.disable(logging.WARNING)
    try:
        return comfy.sd.VAE(sd={k: v.clone() for k, v in weights.items()})
    finally:
        logging.disable(logging.NOTSET)


def _pipeline(family: Family, denoiser: nn.Module, vae: nn.Module, clip: StandInCLIP) -> Any:
    import diffusers

    kind = getattr(diffusers, family.pipeline)
    tokens, (solver, settings) = StandInTokenizer(), family.solver
    text = StandInText(clip, family, tokens)
    takes = signature(kind.__init__).parameters
    parts = {name: tokenizer(77) for name in takes if name.startswith("tokenizer")}
    parts |= {name: None for name in _ABSENT if name in takes}
    parts |= {"unet" if "unet" in takes else "transformer": denoiser, "vae": vae, **family.parts}
    if family.pipeline == "StableDiffusionPipeline":
        parts |= {"text_encoder": text, "requires_safety_checker": False}
    pipe = kind(**parts, scheduler=getattr(diffusers, solver)(**settings))
    pipe.set_progress_bar_config(disable=True)
    pipe.encode_prompt = text.encode_prompt
    if family.pipeline == "StableDiffusionPipeline":
        pipe.tokenizer = tokens
    return pipe
