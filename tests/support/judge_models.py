"""Tiny random image-text and vision-language models in transformers' folders; equal seeds give equal weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dreambooth_dpo.toybox.captions import VOCABULARY, build_tokenizer

SIDE = 32
"""Side of the towers' pictures. Unit: pixels."""
PIXELS = {
    "size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.3],
}


def towers(kind: str, seed: int = 0) -> torch.nn.Module:
    """A CLIPModel, SiglipModel or Siglip2Model (`kind` as model_type) of two layers, with random scale and bias."""
    import transformers as hf

    text = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": len(VOCABULARY), "max_position_embeddings": 24,
        "bos_token_id": VOCABULARY.index("<bos>"), "eos_token_id": VOCABULARY.index("<eos>"), "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8,
    }  # fmt: skip
    vision |= {"num_patches": 16} if kind == "siglip2" else {"image_size": SIDE}
    config_class, model_class = {
        "clip": (hf.CLIPConfig, hf.CLIPModel),
        "siglip": (hf.SiglipConfig, hf.SiglipModel),
        "siglip2": (hf.Siglip2Config, hf.Siglip2Model),
    }[kind]
    more = {"projection_dim": 16} if kind == "clip" else {}
    if kind != "clip":
        text["projection_size"] = 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config_class(text_config=text, vision_config=vision, **more))
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def write_towers(folder: Path, kind: str, seed: int = 0) -> Path:
    """The model of `towers` with tokenizer and preprocessor_config.json, as on a model's page."""
    towers(kind, seed).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    settings: dict[str, Any] = dict(PIXELS)
    if kind == "clip":
        settings |= {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
        settings |= {"do_center_crop": True, "image_processor_type": "CLIPImageProcessor"}
    elif kind == "siglip":
        settings |= {"image_processor_type": "SiglipImageProcessor"}
    else:
        settings |= {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 16}
        del settings["size"]
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


SPECIAL = "<|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|>".split()
WORDS = [
    "<pad>", "<unk>", *SPECIAL, "user", "assistant", "Yes", "No", "yes", "no",
    *'Does this figure show " ? Please answer or . a photo of red blue robot bear wearing hat in snow'.split(),
]  # fmt: skip
"""The vocabulary of `write_vlm`, by token id."""
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vlm_tokenizer(words: list[str] = WORDS) -> Any:
    """A word-level tokenizer with Qwen-VL's special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", additional_special_tokens=SPECIAL
    )


def write_vlm(folder: Path, seed: int = 0, chat: str | None = CHAT) -> Path:
    """A Qwen2.5-VL of two layers with random weights; a picture of 56 x 56 pixels gives 2 x 2 tokens of it."""
    import transformers as hf

    tokenizer = vlm_tokenizer()
    tokenizer.image_token, tokenizer.video_token = "<|image_pad|>", "<|video_pad|>"
    images = hf.Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56)
    hf.Qwen2_5_VLProcessor(images, tokenizer, hf.Qwen2VLVideoProcessor(), chat_template=chat).save_pretrained(folder)
    ids = {
        f"{name}_token_id": WORDS.index(f"<|{word}|>")
        for name, word in (
            ("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }  # fmt: skip
    text = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": len(WORDS), "max_position_embeddings": 512,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "bos_token_id": 2, "eos_token_id": 3,
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14,
        "fullatt_block_indexes": [1], "window_size": 56,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = hf.Qwen2_5_VLForConditionalGeneration(
            hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        )
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.15 * torch.randn_like(p))
    model.save_pretrained(folder)
    return folder
