"""What a weights file is, in words, from the names of its tensors: for the refusal of a file that is no scorer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

MOST = 100_000_000
"""Longest header of a .safetensors file. Unit: bytes (the format's own limit)."""
_KINDS = (
    ("a LoRA", (".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".hada_w", ".lokr_w", ".lora.down.", ".lora.up.")),
    ("a whole checkpoint (denoiser, text encoder and VAE)", ("model.diffusion_model.", "cond_stage_model.")),
    ("a ControlNet", ("zero_convs.", "input_hint_block.", "controlnet_cond_embedding.")),
    ("a diffusion model", ("double_blocks.", "joint_blocks.", "input_blocks.", "down_blocks.", "transformer_blocks.")),
    ("a VAE", ("decoder.up", "decoder.mid", "encoder.down")),
    ("a textual inversion embedding", ("emb_params", "clip_l", "clip_g")),
)
"""Kind and parts of tensor names that only it has; the first that fits counts."""
_SCORER = ("visual.", "vision_model.", "image_encoder.")
"""Starts of tensor names of an image-text model."""


def kind_of_file(path: Path) -> str | None:
    """What a .safetensors file is if it cannot be a scorer, e.g. "a LoRA"; None if it may be one."""
    with path.open("rb") as file:
        start = file.read(64)
        length = int.from_bytes(start[:8], "little")
        if start.startswith(b"version https://git-lfs"):
            return "a pointer of Git LFS and not the file itself (run `git lfs pull`)"
        file.seek(8)
        header = file.read(length) if length <= MOST else b""
    if len(start) < 9 or len(header) < length or length > MOST:
        return "no whole .safetensors file (damaged, or its download broke off)"
    try:
        return kind_of_names(json.loads(header))
    except ValueError:
        return "no whole .safetensors file (damaged, or its download broke off)"


def kind_of_names(names: Iterable[str]) -> str | None:
    """As `kind_of_file`, from the names of the tensors."""
    names = [name for name in names if name != "__metadata__"]
    found = next((kind for kind, parts in _KINDS if any(part in name for name in names for part in parts)), None)
    if found and "LoRA" not in found and any(name.startswith(_SCORER) for name in names):
        return None
    if found is None and names and all(name.startswith(("text_model.", "encoder.block.", "shared.")) for name in names):
        return "a text encoder"
    return found


def short_reason(error: Exception, most: int = 200) -> str:
    """The reason of a library's error in one line: torch's list of tensors as counts, the first of them named."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    counts = []
    for sign, word in (("Missing key", "missing"), ("Unexpected key", "unexpected")):
        if line := next((line for line in lines if line.startswith(sign)), None):
            names = line.partition(": ")[2].split(", ")
            counts.append(f"{len(names)} tensors are {word} (first: {names[0].strip(' .').strip(chr(34))})")
    if sizes := [line for line in lines if line.startswith("size mismatch")]:
        counts.append(f"{len(sizes)} tensors have another shape (first: {sizes[0].split()[3].rstrip(':')})")
    said = "; ".join(counts) or lines[0]
    return said if len(said) <= most else f"{said[: most - 3]}..."
