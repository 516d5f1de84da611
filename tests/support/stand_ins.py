"""Files and folders without tensors that stand for the models, and a picture for the photos, that a graph names."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "unet_name": "diffusion_models", "vae_name": "vae", "clip_name": "text_encoders", "clip_name1": "text_encoders",
    "clip_name2": "text_encoders", "lora_name": "loras", "ckpt_name": "checkpoints",
    "scorer": "dreambooth_dpo_scorers",
}  # fmt: skip
"""Widgets of loaders that name a file, and the folder of that file."""


def write_stand_ins(folder: Path, graph: dict) -> None:
    """Write them below a server's folder, so that the host finds every file that the graph (in API form) names."""
    from PIL import Image

    (folder / "input" / "my_subject").mkdir(parents=True, exist_ok=True)
    for path in ("example.png", "my_subject/one.png"):
        Image.new("RGB", (8, 8)).save(folder / "input" / path)
    for node in graph.values():
        for key, kind in FILES.items():
            if key in node["inputs"] and not isinstance(node["inputs"][key], list):
                path = folder / "models" / kind / node["inputs"][key]
                if not path.suffix:  # a folder, as scorers are
                    path = path / "config.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((2).to_bytes(8, "little") + b"{}")
