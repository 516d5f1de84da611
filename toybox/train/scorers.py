"""Trains the toybox's two contrastive scorers, both open_clip models: the reward (a ViT) and the judge (a ResNet)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from ..captions import CONTEXT_LENGTH, VOCABULARY, build_tokenizer, full_caption
from ..world import render
from .data import captions_for, cosine_with_warmup, distinct_scenes, scenes_and_images

# Captions that leave out much make the reward's embedding a sum of attributes, so that two images of one subject are
# similar although hat and background differ. Captions that name nearly everything make it a hash of the whole image,
# nearly insensitive to the subject alone.
CHANCES = {
    "reward": {"colours": 0.6, "background": 0.6, "identifier": 0.0, "hat": 0.6},
    "judge": {"colours": 0.8, "background": 0.9, "identifier": 0.1},
}
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def _text_cfg() -> dict:
    return {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": len(VOCABULARY),
        "width": 128,
        "heads": 4,
        "layers": 2,
        "hf_tokenizer_name": "toybox",
    }


def model_cfg(kind: str) -> dict:
    """open_clip model config of the `reward` (ViT, patch 8) or the `judge` (ModifiedResNet)."""
    vision = {"image_size": 64, "layers": 4, "width": 128, "patch_size": 8, "head_width": 32}
    if kind == "judge":
        vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16}
    return {"embed_dim": 128, "vision_cfg": vision, "text_cfg": _text_cfg()}


def _augment(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shifts, flips, blur and noise, as in decoded images but not in renders. x: [b, 3, 64, 64], -1..1."""
    dy, dx = rng.integers(-4, 5, 2)
    x = torch.roll(x, (int(dy), int(dx)), (2, 3))
    if rng.random() < 0.5:
        x = x.flip(3)
    if rng.random() < 0.5:
        x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    return x + torch.randn_like(x) * float(rng.uniform(0, 0.15))


def retrieval_top1(model, count: int, seed: int) -> float:
    """Share (0..1) of `count` fresh renders whose own full caption scores highest among all `count` captions."""
    scenes = distinct_scenes(count, seed)
    pixels = torch.from_numpy(np.stack([render(s, seed + i) for i, s in enumerate(scenes)])).permute(0, 3, 1, 2)
    tokens = _tokenize(build_tokenizer(), [full_caption(s) for s in scenes])
    model.eval()
    with torch.no_grad():
        images = model.encode_image(pixels.float() / 127.5 - 1, normalize=True)
        texts = model.encode_text(tokens, normalize=True)
    model.train()
    return float((images @ texts.T).argmax(1).eq(torch.arange(count)).float().mean())


def _tokenize(tokenizer, texts: list[str]) -> torch.Tensor:
    return tokenizer(texts, padding="max_length", max_length=CONTEXT_LENGTH, return_tensors="pt").input_ids


def _save(model, kind: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_cfg(kind), "preprocess_cfg": {"mean": list(MEAN), "std": list(STD)}}
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    weights = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(weights, out / "open_clip_model.safetensors")
    build_tokenizer().save_pretrained(out)


def train_scorer(kind: str, out: Path, steps: int, device: str, seed: int, log) -> dict:
    """Contrastive training on renders; `kind` is "reward" or "judge", which differ in architecture, data and seed."""
    from open_clip.model import CLIP

    torch.manual_seed(seed)
    batch = {"reward": 96, "judge": 64}[kind]
    rng = np.random.default_rng(seed)
    scenes, pixels = scenes_and_images(20000, seed + 1)
    model = CLIP(**model_cfg(kind), output_dict=False).to(device)
    chances = CHANCES[kind]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.5e-3 if kind == "reward" else 1e-3, weight_decay=0.05, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine_with_warmup(s, steps))
    tokenizer, target = build_tokenizer(), torch.arange(batch, device=device)
    for step in range(steps):
        pick = rng.integers(0, len(scenes), batch)
        x = _augment(pixels[torch.from_numpy(pick)].float().div(127.5).sub(1), rng).to(device)
        tokens = _tokenize(tokenizer, captions_for([scenes[i] for i in pick], rng, **chances)).to(device)
        images, texts, scale = model(x, tokens)[:3]
        logits = scale * images @ texts.T
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        if step % 100 == 0:
            log(f"{kind} step {step}/{steps} loss {loss.item():.3f}")
    model = model.cpu()
    quality = {"top1_of_500": retrieval_top1(model, 500, seed + 5)}
    _save(model, kind, out)
    return quality
