"""Full-size checkpoints of random weights in a server's folders, and the other files that the examples name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dreambooth_dpo.doctor.scorer_files import USUAL
from dreambooth_dpo.dpo_core.backends.comfyui.random_models import lora_layers, write_checkpoint


def subject_lora(kind: str, rank: int = 4) -> dict[str, torch.Tensor]:
    """A LoRA with names as in kohya, small and random, on a few attention layers of UNet and text encoder."""
    generator, tensors = torch.Generator().manual_seed(1), {}
    layers = [
        (name, shape) for name, shape in lora_layers(kind).items() if name.endswith(("attn1_to_q", "attn2_to_v"))
    ][:6]
    encoder = {"sd15": "lora_te", "sdxl": "lora_te1"}[kind]
    layers += [(f"{encoder}_text_model_encoder_layers_{i}_self_attn_q_proj", (768, 768)) for i in range(2)]
    for name, (rows, columns) in layers:
        tensors[f"{name}.lora_down.weight"] = (torch.randn(rank, columns, generator=generator) / columns**0.5).half()
        tensors[f"{name}.lora_up.weight"] = (torch.randn(rows, rank, generator=generator) * 0.01).half()
        tensors[f"{name}.alpha"] = torch.tensor(float(rank)).half()
    return tensors


def write_scorers(folder: Path) -> None:
    """The two scorers that the README names, as folders of their files, with random weights."""
    import open_clip
    from safetensors.torch import save_file
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    reward, judge = (folder / name.partition("/")[2] for name in USUAL)
    reward.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        weights = open_clip.create_model("ViT-B-32").state_dict()
        Dinov2Model(Dinov2Config()).save_pretrained(judge)
    BitImageProcessor(crop_size={"height": 224, "width": 224}, size={"shortest_edge": 256}).save_pretrained(judge)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, reward / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}
    (reward / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")


def fill_server(folder: Path, kind: str, checkpoint: str) -> None:
    """Create the files that the example workflow of `kind` names, in a server's base directory."""
    from safetensors.torch import save_file

    write_checkpoint(kind, folder / "models" / "checkpoints" / checkpoint)
    (folder / "models" / "loras").mkdir(parents=True, exist_ok=True)
    save_file(subject_lora(kind), folder / "models" / "loras" / "my_subject.safetensors")
    write_scorers(folder / "models" / "dreambooth_dpo_scorers")
    (folder / "input").mkdir(exist_ok=True)
    photo = np.random.default_rng(3).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(photo).resize((256, 256), Image.Resampling.BICUBIC).save(folder / "input" / "example.png")
