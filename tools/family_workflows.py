"""The example workflows of model families: loaders, files and turbo models as data, the graph as for one's own LoRA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dreambooth_dpo.doctor.scorer_files import USUAL

DRAWING = {"candidates_per_prompt": 8, "batch_size": 0}
"""All else is auto: the family's own steps, cfg, sampler and size."""
TRAINING = {"pairs_per_step": 1, "accumulation": 8}
TURBO_LEFT = 2620
"""Left edge of the part that verifies on turbo."""


@dataclass(frozen=True)
class Files:
    """The files of a family, as its own examples in ComfyUI name them."""

    title: str
    denoiser: str
    encoders: tuple[str, ...]
    clip_type: str
    vae: str
    source: str
    """Where the files are: an account and repository of huggingface.co."""
    license: str
    weight_dtype: str = "default"
    turbo: str = ""
    turbo_drawing: dict = field(default_factory=dict)
    says: str = ""


FAMILIES = {
    "z_image_lora_improve": Files(
        "Z-Image", "z_image_bf16.safetensors", ("qwen_3_4b.safetensors",), "lumina2", "ae.safetensors",
        "Comfy-Org/z_image, Comfy-Org/z_image_turbo", "Apache-2.0", turbo="z_image_turbo_bf16.safetensors",
        turbo_drawing={"steps": 8, "cfg": 1.0},
    ),
    "flux2_klein_lora_improve": Files(
        "Flux.2 klein 4B", "flux-2-klein-base-4b.safetensors", ("qwen_3_4b.safetensors",), "flux2",
        "flux2-vae.safetensors", "Comfy-Org/flux2-klein, Comfy-Org/flux2-dev", "Apache-2.0",
        turbo="flux-2-klein-4b.safetensors", turbo_drawing={"steps": 4, "cfg": 1.0},
    ),
    "qwen_image_lora_improve": Files(
        "Qwen-Image", "qwen_image_2512_fp8_e4m3fn.safetensors", ("qwen_2.5_vl_7b_fp8_scaled.safetensors",),
        "qwen_image", "qwen_image_vae.safetensors", "Comfy-Org/Qwen-Image_ComfyUI", "Apache-2.0",
        says="The model has 8-bit weights: load the LoRA in bypass mode. Save DPO LoRA says by how much the other "
        "loader differs.",
    ),
    "krea2_lora_improve": Files(
        "Krea 2", "krea2_raw_bf16.safetensors", ("qwen3vl_4b_bf16.safetensors",), "krea2",
        "qwen_image_vae.safetensors", "Comfy-Org/Krea-2", "Krea 2 Community License",
        turbo="krea2_turbo_bf16.safetensors", turbo_drawing={"steps": 8, "cfg": 1.0},
    ),
    "flux1_lora_improve": Files(
        "Flux.1 dev", "flux1-dev.safetensors", ("clip_l.safetensors", "t5xxl_fp16.safetensors"), "flux",
        "ae.safetensors", "black-forest-labs/FLUX.1-dev, comfyanonymous/flux_text_encoders",
        "FLUX.1 [dev] Non-Commercial License",
    ),
}  # fmt: skip
"""By the workflow's name."""


SOURCES = tuple(USUAL)
REWARD, JUDGE = (name.partition("/")[2] for name in SOURCES)
"""Folders of the scorers that the README installs."""
SCORERS = f"""- `models/dreambooth_dpo_scorers/{REWARD}`: the scorer that trains (MIT; huggingface.co:
  {SOURCES[0]})
- `models/dreambooth_dpo_scorers/{JUDGE}`: the judge (Apache-2.0; huggingface.co: {SOURCES[1]})"""


def loaders(files: Files, node: Callable[..., dict]) -> dict:
    """The host's own loaders of denoiser, text encoder and VAE, with the user's LoRA on the denoiser."""
    if len(files.encoders) == 2:
        first, second = files.encoders
        names = {"clip_name1": first, "clip_name2": second, "type": files.clip_type}
        encoder = node("DualCLIPLoader", -400, 195, (340, 170), **names)
    else:
        encoder = node("CLIPLoader", -400, 195, (340, 140), clip_name=files.encoders[0], type=files.clip_type)
    return {
        "denoiser": node(
            "UNETLoader", -400, 0, (340, 120), "The model that trains",
            unet_name=files.denoiser, weight_dtype=files.weight_dtype,
        ),
        "encoder": encoder,
        "vae": node("VAELoader", -400, 450, (340, 90), vae_name=files.vae),
        "lora": node(
            "LoraLoaderModelOnly", -400, 600, (340, 120), "Your LoRA", model=["denoiser", 0],
            lora_name="my_subject.safetensors",
        ),
    }  # fmt: skip


def verification(files: Files, node: Callable[..., dict], words: Callable[..., dict]) -> dict:
    """The trained LoRA on the family's fast model, by Strength Sweep; two pictures a prompt set its sampling."""
    left, lora = TURBO_LEFT, {"lora_name": "my_subject.safetensors"}
    drawing = {**DRAWING, "candidates_per_prompt": 2, **files.turbo_drawing}
    subject = {"concept": ["concept", 0], "prompts": ["prompts", 0], "run_name": f"{_stem(files)}_turbo"}
    model = {"model": ["turbo_lora", 0], "clip": ["encoder", 0], "vae": ["vae", 0]}
    return {
        "turbo": node(
            "UNETLoader", left, 0, (420, 120), "The fast model that draws", unet_name=files.turbo,
            weight_dtype=files.weight_dtype,
        ),
        "turbo_lora": node("LoraLoaderModelOnly", left, 180, (420, 120), "Your LoRA", model=["turbo", 0], **lora),
        "turbo_sample": node(
            "DBDPO_SampleCandidates", left, 360, (420, 900), "How the fast model draws", **model, **subject, **drawing
        ),
        "turbo_sweep": node(
            "DBDPO_Strength", left + 480, 0, (760, 700), "Does it help the fast model, and at what strength?", **model,
            lora=["train", 1], candidates=["turbo_sample", 0], scorer=["scorer", 0], strengths="0, 0.5, 1",
        ),
        "turbo_report": words(left + 480, 1010, (760, 220), "Which strength?", ["turbo_sweep", 3]),
    }  # fmt: skip


def _stem(files: Files) -> str:
    return next(name for name, entry in FAMILIES.items() if entry is files)


def note_text(files: Files) -> str:
    """The note beside the graph: what to do, which files, and where they belong."""
    listed = [("diffusion_models", files.denoiser), *([("diffusion_models", files.turbo)] if files.turbo else [])]
    listed += [*(("text_encoders", name) for name in files.encoders), ("vae", files.vae)]
    rows = "\n".join(f"- `models/{folder}/{name}`" for folder, name in listed)
    fast = (
        "\n\nThe LoRA is trained on the base model and, at the right, measured on the fast one that you draw with, "
        "at several strengths."
        if files.turbo
        else ""
    )
    more = f"\n\n{files.says}" if files.says else ""
    return f"""# Start here
Choose your LoRA and photos, then press **Run**.
1. *Load LoRA*: your LoRA of {files.title}.
2. Drop photos of the subject onto *Subject Photos*; enter *identifier* and *class noun* as in training.
3. *Scorer that trains*, *Judge that never trains*: two models, installed once.

Values that are *auto* are this family's own.{fast}{more}

## Files
{files.license}; huggingface.co: {files.source}
{rows}
- `models/loras/`: your LoRA
{SCORERS}"""
