"""Tiny pipelines of every class that the headless way drives, with random weights, built without downloads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

SIDE = 64
"""Width and height of their pictures. Unit: pixels."""
_CLIP = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 300}
_QWEN = {
    "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 300,
    "max_position_embeddings": 1200,
}  # fmt: skip
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
)
_FLOW = {"num_train_timesteps": 1000, "shift": 3.0}
_DYNAMIC = {**_FLOW, "shift": 1.0, "use_dynamic_shifting": True}
_TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tokenizer(longest: int) -> Any:
    """A tokenizer of single bytes, with marks for start, end and padding, and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: i for i, token in enumerate([*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<pad>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=longest, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=marks[3:], chat_template=_CHAT,
    )  # fmt: skip


def _clip(width: int = 32, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(**_CLIP, hidden_size=width, projection_dim=width, eos_token_id=2, bos_token_id=1)
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _t5(width: int = 32) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=300, d_model=width, d_ff=32, d_kv=16, num_layers=2, num_heads=2))


def _qwen3(layers: int, causal: bool = False) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    return (Qwen3ForCausalLM if causal else Qwen3Model)(Qwen3Config(**_QWEN, head_dim=16, num_hidden_layers=layers))


def _qwen25_vl() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32, "intermediate_size": 32}
    text = {**_QWEN, "num_hidden_layers": 2, "rope_parameters": rope}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def _qwen3_vl() -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLModel

    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32, "intermediate_size": 32,
              "deepstack_visual_indexes": [0]}  # fmt: skip
    text = {**_QWEN, "head_dim": 16, "num_hidden_layers": 3, "rope_parameters": rope}
    return Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision))


def _mistral3() -> Any:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = {**_QWEN, "model_type": "mistral", "head_dim": 16, "num_hidden_layers": 31}
    vision = {"model_type": "pixtral", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "head_dim": 16}  # fmt: skip
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))


def _vae(channels: int = 4, shift: float | None = None) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), latent_channels=channels, norm_num_groups=4, scaling_factor=0.4,
        shift_factor=shift, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip


def _vae_flux2() -> Any:
    from diffusers import AutoencoderKLFlux2

    made = AutoencoderKLFlux2(block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4)
    made.bn.running_mean.uniform_(-0.5, 0.5)
    made.bn.running_var.uniform_(0.5, 1.5)
    return made


def _vae_qwen() -> Any:
    from diffusers import AutoencoderKLQwenImage

    means, spreads = torch.rand(4).tolist(), (torch.rand(4) + 0.5).tolist()
    return AutoencoderKLQwenImage(base_dim=8, z_dim=4, num_res_blocks=1, latents_mean=means, latents_std=spreads)


def _unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **more,
    )  # fmt: skip


_AXES = {"attention_head_dim": 16, "num_attention_heads": 2}


def _sd() -> dict[str, Any]:
    parts = {"unet": _unet(cross_attention_dim=32), "vae": _vae(), "text_encoder": _clip(), "tokenizer": tokenizer(77)}
    return {**parts, "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _sdxl() -> dict[str, Any]:
    unet = _unet(
        cross_attention_dim=32 + 48, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48 + 6 * 8, use_linear_projection=True,
    )  # fmt: skip
    texts = {"text_encoder": _clip(), "text_encoder_2": _clip(48, projected=True)}  # told apart by their widths
    return {"unet": unet, "vae": _vae(), **texts, "tokenizer": tokenizer(77), "tokenizer_2": tokenizer(77)}


def _sd3() -> dict[str, Any]:
    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=4, num_layers=2, caption_projection_dim=32, joint_attention_dim=64,
        pooled_projection_dim=64, out_channels=4, pos_embed_max_size=32, dual_attention_layers=(0,), qk_norm="rms_norm",
        **_AXES,
    )  # fmt: skip
    texts = {"text_encoder": _clip(projected=True), "text_encoder_2": _clip(projected=True), "text_encoder_3": _t5(64)}
    tokens = {"tokenizer": tokenizer(77), "tokenizer_2": tokenizer(77), "tokenizer_3": tokenizer(512)}
    return {"transformer": transformer, "vae": _vae(4, 0.1), **texts, **tokens}


def _flux() -> dict[str, Any]:
    from diffusers import FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, joint_attention_dim=32, pooled_projection_dim=32,
        guidance_embeds=True, axes_dims_rope=(4, 6, 6), **_AXES,
    )  # fmt: skip
    texts = {"text_encoder": _clip(), "text_encoder_2": _t5()}
    tokens = {"tokenizer": tokenizer(77), "tokenizer_2": tokenizer(512)}
    return {"transformer": transformer, "vae": _vae(4, 0.1), **texts, **tokens}


def _chroma() -> dict[str, Any]:
    from diffusers import ChromaTransformer2DModel

    transformer = ChromaTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, joint_attention_dim=32, axes_dims_rope=(4, 6, 6),
        approximator_hidden_dim=32, approximator_layers=2, approximator_num_channels=16, **_AXES,
    )  # fmt: skip
    return {"transformer": transformer, "vae": _vae(4, 0.1), "text_encoder": _t5(), "tokenizer": tokenizer(512)}


def _flux2(dev: bool) -> dict[str, Any]:
    from diffusers import Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, joint_attention_dim=96, timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4), guidance_embeds=dev, **_AXES,
    )  # fmt: skip
    text = _mistral3() if dev else _qwen3(28, causal=True)
    return {"transformer": transformer, "vae": _vae_flux2(), "text_encoder": text, "tokenizer": tokenizer(1024)}


def _z_image() -> dict[str, Any]:
    from diffusers import ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=64, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=32,
        axes_dims=[8, 12, 12], axes_lens=[1024, 64, 64],
    )  # fmt: skip
    return {"transformer": transformer, "vae": _vae(4, 0.1), "text_encoder": _qwen3(3), "tokenizer": tokenizer(1024)}


def _qwen_image() -> dict[str, Any]:
    from diffusers import QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, joint_attention_dim=32, axes_dims_rope=(4, 6, 6), **_AXES
    )
    return {
        "transformer": transformer, "vae": _vae_qwen(), "text_encoder": _qwen25_vl(), "tokenizer": tokenizer(1200)
    }  # fmt: skip


def _krea2() -> dict[str, Any]:
    from diffusers import Krea2Transformer2DModel

    transformer = Krea2Transformer2DModel(
        in_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=64, timestep_embed_dim=16, text_hidden_dim=32, num_text_layers=3, text_num_attention_heads=2,
        text_num_key_value_heads=2, text_intermediate_size=32, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    parts = {"transformer": transformer, "vae": _vae_qwen(), "text_encoder": _qwen3_vl(), "tokenizer": tokenizer(1200)}
    return {**parts, "text_encoder_select_layers": (1, 2, 3)}


BUILDERS: Mapping[str, tuple[Callable[[], dict[str, Any]], str, Mapping[str, Any]]] = {
    "StableDiffusionPipeline": (_sd, "DPMSolverMultistepScheduler", _TABLE),
    "StableDiffusionXLPipeline": (_sdxl, "EulerDiscreteScheduler", {**_TABLE, "timestep_spacing": "trailing"}),
    "StableDiffusion3Pipeline": (_sd3, "FlowMatchEulerDiscreteScheduler", _FLOW),
    "FluxPipeline": (_flux, "FlowMatchEulerDiscreteScheduler", _DYNAMIC),
    "ChromaPipeline": (_chroma, "FlowMatchEulerDiscreteScheduler", _DYNAMIC),
    "Flux2Pipeline": (lambda: _flux2(dev=True), "FlowMatchEulerDiscreteScheduler", _DYNAMIC),
    "Flux2KleinPipeline": (lambda: _flux2(dev=False), "FlowMatchEulerDiscreteScheduler", _DYNAMIC),
    "ZImagePipeline": (_z_image, "FlowMatchEulerDiscreteScheduler", _FLOW),
    "QwenImagePipeline": (_qwen_image, "FlowMatchEulerDiscreteScheduler", _DYNAMIC),
    "Krea2Pipeline": (_krea2, "FlowMatchEulerDiscreteScheduler", _DYNAMIC),
}
"""By pipeline class: its parts, its scheduler's class and settings."""


def tiny(name: str, seed: int = 0, **scheduler: Any) -> Any:
    """A pipeline of this class on the CPU, float32. scheduler: settings in place of the usual ones."""
    import diffusers

    build, kind, settings = BUILDERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = build()
    parts["scheduler"] = getattr(diffusers, kind)(**{**settings, **scheduler})
    pipe = getattr(diffusers, name)(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe
