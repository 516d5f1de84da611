"""Full-size Stable Diffusion models, and a tiny one, with random weights, built by diffusers without downloads."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from zlib import crc32

import torch

from ...protocols import Cond
from .model import DiffusersTextToImage

CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
_ATTENDING = {"down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)} | {
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
}
UNETS = {
    "medium": _ATTENDING | {
        "block_out_channels": (128, 256, 384, 384), "layers_per_block": 2, "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "sd15": _ATTENDING | {
        "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "sdxl": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
SIDES = {"medium": 256, "sd15": 512, "sdxl": 1024}
"""Native side length of each model, in pixels."""


class HashTokenizer:
    """Tokenizer stand-in for random weights: 77 ids per prompt, from the hashes of its words."""

    model_max_length = 77

    def __call__(self, prompts: str | Sequence[str], **_: object) -> SimpleNamespace:
        rows = []
        for prompt in [prompts] if isinstance(prompts, str) else prompts:
            ids = [49406, *(crc32(w.encode()) % 49000 for w in prompt.split())][: self.model_max_length - 1]
            rows.append(ids + [49407] * (self.model_max_length - len(ids)))
        return SimpleNamespace(input_ids=torch.tensor(rows))


def unet(name: str):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(sample_size=SIDES[name] // 8, in_channels=4, out_channels=4, **UNETS[name])


def tiny_unet(channels: tuple[int, int] = (32, 64), cross_attention_dim: int = 128):
    """An SD-layout UNet with one block of each kind (about 1.3 M weights)."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def _text_encoder(config: dict, projected: bool = False):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(CLIPTextConfig(**config))


def random_pipeline(name: str, device: str):
    """The parts of a StableDiffusionPipeline of this size, with their initial random weights."""
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {
            "unet": unet(name),
            "vae": AutoencoderKL(scaling_factor=0.18215, **VAE),
            "text_encoder": _text_encoder(CLIP_L),
        }
        if name == "sdxl":
            parts["text_encoder_2"] = _text_encoder(CLIP_G, projected=True)
    scheduler = DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    parts = {key: part.to(device).eval().requires_grad_(False) for key, part in parts.items()}
    return SimpleNamespace(
        **parts, scheduler=scheduler, tokenizer=HashTokenizer(), device=torch.device(device), vae_scale_factor=8
    )


class RandomXL(DiffusersTextToImage):
    """SDXL with random weights: conditioning from both text encoders, the pooled output and the sizes."""

    resting = ("vae", "text_encoder", "text_encoder_2")

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        for name in self.resting[1:]:
            self._wake(getattr(self.pipe, name))
        ids = self.pipe.tokenizer(list(prompts)).input_ids.to(self.device)
        return encode_xl(self.pipe, ids)

    def predict(self, noised: torch.Tensor, times: torch.Tensor, cond: Cond) -> torch.Tensor:
        with self._autocast():
            return self.denoiser(noised, times.to(self.device), **unet_arguments(cond)).sample.float()


def encode_xl(pipe, ids: torch.Tensor) -> Cond:
    """SDXL's conditioning of token ids [n, 77]."""
    first = pipe.text_encoder(ids, output_hidden_states=True)
    second = pipe.text_encoder_2(ids, output_hidden_states=True)
    states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
    sizes = torch.tensor([[1024, 1024, 0, 0, 1024, 1024]], dtype=states.dtype, device=ids.device).repeat(len(ids), 1)
    return {"encoder_hidden_states": states, "text_embeds": second.text_embeds, "time_ids": sizes}


def unet_arguments(cond: Cond) -> dict[str, object]:
    """The UNet's keyword arguments; SDXL's additional ones go into `added_cond_kwargs`."""
    added = {k: cond[k] for k in ("text_embeds", "time_ids") if k in cond}
    plain = {"encoder_hidden_states": cond["encoder_hidden_states"]}
    return {**plain, "added_cond_kwargs": added} if added else plain
