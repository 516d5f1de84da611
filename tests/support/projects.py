"""A user's project in small: a pipeline of random weights, photos, prompts and a config; with non-ASCII names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from models import tiny_pipeline
from PIL import Image

from dreambooth_dpo.dpo_core.config import RunConfig, read_config
from dreambooth_dpo.toybox.models import weights_folder

TEMPLATES = (
    "[sand] a photo of a {identifier} {class_noun} on sand",
    "[sand] a {identifier} {class_noun} on sand",
    "# a comment",
    "",
    "[café] a photo of a {identifier} {class_noun} in a café",
    "[café] a {identifier} {class_noun} in a café",
)


def write_photos(folder: Path, count: int, seed: int) -> Path:
    """Write non-square pictures of a few coloured blocks."""
    folder.mkdir(parents=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    for i, pixels in enumerate(blocks.repeat(20, 1).repeat(20, 2)):
        Image.fromarray(pixels).save(folder / f"größe {i}.png")
    return folder


def make_project(folder: Path, **changes: object) -> Path:
    """Create a project folder with `config.yaml` and return its path; paths in it are relative to it."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_pipeline(folder / "modèle")
    write_photos(folder / "fotos ü", 3, 0)
    write_photos(folder / "andere fotos", 2, 1)
    (folder / "prompts ß.txt").write_text("\n".join(TEMPLATES), encoding="utf-8")
    return write_config(folder, **changes)


def write_config(project: Path, file: str = "config.yaml", **changes: object) -> Path:
    """Write the project's config with changed values; keyword a__b sets a.b."""
    config = {
        "rounds": 1,
        "model": {"path": "modèle", "device": "cpu"},
        "concept": {"identifier": "sks", "class_noun": "robot", "references": "fotos ü", "held_out": "andere fotos"},
        "scorers": {"reward": str(weights_folder("reward")), "judge": str(weights_folder("judge"))},
        "prompts": "prompts ß.txt",
        "output": "läufe/erster",
        "sampling": {
            "candidates_per_prompt": 3,
            "steps": 2,
            "guidance": 2.0,
            "width": 64,
            "height": 64,
            "batch_size": 4,
        },
        "pairs": {"angle_low": -90.0, "angle_high": 180.0, "margin": 0.0},
        "adapter": {"rank": 2, "alpha": 2.0},
        "train": {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, "winner_error_collapse": 10.0},
        "evaluation": {"seeds_per_prompt": 2, "bootstrap": 100},
        "stop": {"rule": "last"},
        "personalize": {"steps": 4, "batch_size": 2, "rank": 2, "curve": [0, 2], "max_steps": 5},
    }
    for name, value in changes.items():
        section, *rest = name.split("__")
        if rest:
            config[section][rest[0]] = value
        else:
            config[section] = value
    path = project / file
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    return path


def config_of(project: Path, **changes: object) -> RunConfig:
    """Read the config; changes as for `write_config`."""
    return read_config(write_config(project, **changes))


def write_lora(model, path: Path, seed: int) -> None:
    """Write a LoRA of rank 3 with random weights for a TextToImage."""
    import torch

    from dreambooth_dpo.dpo_core.settings import AdapterSettings
    from dreambooth_dpo.dpo_core.training.adapter import Adapter
    from dreambooth_dpo.dpo_core.training.lora_files import save_lora

    adapter = Adapter(model.denoiser, AdapterSettings(rank=3, alpha=3.0), seed=seed)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=draws))
    save_lora(adapter, path, {})
