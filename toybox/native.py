"""The toybox's trained models as ComfyUI's own MODEL, CLIP and VAE, read from the diffusers folder without diffusers.

The latents are 4 times smaller than the image, but ComfyUI's "Empty Latent Image" divides by 8. In a graph of stock
nodes set it to twice the size: 128 x 128 there gives [4, 16, 16] latents, which decode to the 64 x 64 pixels that the
toybox is trained on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..dpo_core.backends.comfyui import host
from ..dpo_core.backends.comfyui.classes import FAMILY
from ..dpo_core.errors import UserError
from .models import weights_folder
from .shipped import WEIGHTS

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

_WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
# Previews: RGB (-1..1) as a linear map of the latent's four channels, fitted by least squares to 600 renders encoded by
# the VAE and pooled to 16 x 16. On 200 other renders the mean absolute error is 0.19, against 0.44 of a constant grey.
_RGB_FACTORS = [[-0.357, -0.0962, 0.0281], [-0.0431, 0.327, 0.27], [0.1754, 0.008, 0.2662], [0.2038, 0.0465, -0.1235]]
_RGB_BIAS = [0.08, -0.0065, -0.0612]


def native_toybox(root: Path = WEIGHTS) -> tuple[ModelPatcher, CLIP, VAE]:
    """Build (MODEL, CLIP, VAE) from the weights under `root`/pipeline.

    All are float32 on ComfyUI's offload devices, frozen, in eval mode. MODEL: latents [n, 4, h, w] with scale 1,
    epsilon prediction on Stable Diffusion's noise schedule. CLIP: conditioning [1, 24, 128], 24 further tokens for each
    section of a longer prompt. VAE: images [n, H, W, 3] in 0..1 <-> [n, 4, H/4, W/4]. The weights are ordinary tensors
    that can be trained on, even when a node builds them, which ComfyUI runs under inference_mode. Raises UserError when
    a file is missing, unreadable, or does not contain exactly the expected weights.
    """
    host.check()
    folder = weights_folder("pipeline", root)
    with torch.inference_mode(False):
        return _model(root), _clip(folder / "text_encoder", folder / "tokenizer"), _vae(folder / "vae")


def _broken(path: Path, reason: object) -> UserError:
    why = " ".join(str(reason).split())[:300]
    return UserError(
        f"toybox weights {path} cannot be used: {why}. Restore them from the repository, "
        "or train them: python -m dreambooth_dpo.toybox.train all"
    )


def _config(folder: Path) -> dict:
    """Read the folder's config.json."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _broken(folder / "config.json", error) from error


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file and convert it to float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise _broken(path, error) from error


def _fill(module: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Load every weight and freeze it.

    Strict, because ComfyUI's layers are not initialised: a missing weight would be random memory.
    """
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise _broken(path, error) from error
    module.eval().requires_grad_(False)


def _unet_config(config: dict) -> dict:
    """Translate diffusers' UNet2DConditionModel config to ComfyUI's UNetModel config.

    All of these keys are needed: some by the constructor, the lists also by ComfyUI's maps of LoRA keys. ComfyUI reads
    `transformer_depth_output` from its end, the deepest block first. `attention_head_dim` is, for SD layouts, the
    number of heads.
    """
    channels, layers = config["block_out_channels"], config["layers_per_block"]
    down = [int("CrossAttn" in kind) for kind in config["down_block_types"] for _ in range(layers)]
    up = [int("CrossAttn" in kind) for kind in config["up_block_types"] for _ in range(layers + 1)]
    return {
        "image_size": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": channels[0],
        "channel_mult": [c // channels[0] for c in channels],
        "num_res_blocks": [layers] * len(channels),
        "transformer_depth": down,
        "transformer_depth_output": up[::-1],
        "transformer_depth_middle": 1,
        "context_dim": config["cross_attention_dim"],
        "use_spatial_transformer": True,
        "num_heads": config["attention_head_dim"],
        "num_head_channels": -1,
    }


def _model(root: Path) -> Any:
    folder = weights_folder("pipeline", root) / "unet"
    described, path = _config(folder), folder / _WEIGHTS_NAME
    # spacial_downscale_ratio of newer hosts is left at 8, so that "twice the size" is right on every version.
    latent = {"scale_factor": 1.0, "latent_rgb_factors": _RGB_FACTORS, "latent_rgb_factors_bias": _RGB_BIAS}

    def fill(denoiser: nn.Module, names: dict[str, str]) -> None:
        for module in denoiser.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = described["norm_num_groups"]  # ComfyUI always makes 32
        _fill(denoiser, {names.get(k, k): v for k, v in _tensors(path).items()}, path)

    patcher = host.unet_model(_unet_config(described), latent, fill, (_again, (root,)))
    setattr(patcher.model.model_config, FAMILY, "Toybox")
    return patcher


def _again(root: Path, disable_dynamic: bool = True) -> Any:
    """Build the MODEL again, when the host asks for it. It is always loaded as a whole."""
    with torch.inference_mode(False):
        return _model(root)


class _Words:
    """The word-level tokenizer with the interface that ComfyUI's SDTokenizer expects.

    Uses `tokenizers`, which every release of transformers depends on.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        if not path.is_file():
            raise _broken(path, "the file is missing")
        self._tokenizer = Tokenizer.from_file(str(path))

    @classmethod
    def from_pretrained(cls, folder: Path) -> _Words:
        return cls(Path(folder) / "tokenizer.json")

    def get_vocab(self) -> dict[str, int]:
        return self._tokenizer.get_vocab()

    def __call__(self, text: str) -> dict[str, list[int]]:
        """{"input_ids": [<bos>, words, <eos>]}"""
        return {"input_ids": self._tokenizer.encode(text).ids}


def _clip(folder: Path, tokenizer_folder: Path) -> Any:
    """The text encoder as a CLIP-L of its own size."""
    config, path = _config(folder), folder / "model.safetensors"
    tensors = _tensors(path)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    # Older releases of transformers write the prefix, newer ones do not. The encoder has no projection, so the
    # projection is the identity.
    named = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in tensors.items()}
    named["text_projection.weight"] = torch.eye(config["hidden_size"])
    return host.text_encoder(config, _Words, tokenizer_folder, parameters, lambda encoder: _fill(encoder, named, path))


class _Block(nn.Module):
    """Three convolutions with a skip connection: [n, c, h, w] -> [n, c, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x) + x)


class _TinyAutoencoder(nn.Module):
    """diffusers' AutoencoderTiny with the same weight names."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        inner, stages = config["encoder_block_out_channels"][0], config["num_encoder_blocks"]
        layers: list[nn.Module] = []
        for i, count in enumerate(stages):
            first = (
                nn.Conv2d(inner, inner, 3, stride=2, padding=1, bias=False)
                if i
                else nn.Conv2d(config["in_channels"], inner, 3, padding=1)
            )
            layers += [first, *(_Block(inner) for _ in range(count))]
        layers.append(nn.Conv2d(inner, config["latent_channels"], 3, padding=1))
        self.encoder = nn.ModuleDict({"layers": nn.Sequential(*layers)})

        inner, stages = config["decoder_block_out_channels"][0], config["num_decoder_blocks"]
        layers = [nn.Conv2d(config["latent_channels"], inner, 3, padding=1), nn.ReLU()]
        for count in stages[:-1]:
            layers += [
                *(_Block(inner) for _ in range(count)),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            ]
        layers += [*(_Block(inner) for _ in range(stages[-1])), nn.Conv2d(inner, config["out_channels"], 3, padding=1)]
        self.decoder = nn.ModuleDict({"layers": nn.Sequential(*layers)})

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """[n, 3, H, W] in -1..1 -> latents [n, 4, H/4, W/4]."""
        return self.encoder["layers"](pixels.add(1).div(2))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [n, 4, h, w] -> [n, 3, 4h, 4w], in -1..1 except for overshoot."""
        return self.decoder["layers"](torch.tanh(latents / 3) * 3).mul(2).sub(1)


def _vae(folder: Path) -> Any:
    """A comfy.sd.VAE around the copy of AutoencoderTiny."""
    config, path = _config(folder), folder / _WEIGHTS_NAME
    model = _TinyAutoencoder(config)
    _fill(model, _tensors(path), path)
    ratio = 2 ** (len(config["num_encoder_blocks"]) - 1)
    return host.image_codec(
        model, config["latent_channels"], config["out_channels"], ratio, 3 * config["decoder_block_out_channels"][-1]
    )
