"""Model folders: what the loop can drive, checked from the small files first; every weight must be there and fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from ...errors import UserError
from ...weights_file import damage

PIPELINES = frozenset(
    f"StableDiffusion{kind}Pipeline"
    for kind in ("", "Img2Img", "Inpaint", "ControlNet", "ControlNetImg2Img", "ControlNetInpaint", "PAG", "SAG")
)
"""Pipeline classes with the parts of StableDiffusionPipeline; whether their UNet is plain is checked on its config."""
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny", "AsymmetricAutoencoderKL", "ConsistencyDecoderVAE"),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": (),
}
"""The classes of the parts that the loop can drive; empty: any."""
_VOCABULARIES = ("tokenizer.json", "vocab.json")
_PLAIN = (
    "addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "encoder_hid_dim",
    "time_cond_proj_dim",
)  # fmt: skip
"""Settings of a UNet that give it inputs besides latents, time and prompt."""
_CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_HARMLESS = ("position_ids",)
"""Buffers that older transformers saved and newer ones compute."""


def _refuse(folder: Path, reason: str, remedy: str) -> UserError:
    return UserError(f"model folder {folder} cannot be loaded as a StableDiffusionPipeline: {reason} {remedy}")


def check_model_folder(folder: str | Path) -> None:
    """Check a model folder by its JSON files and the headers of its weights, within milliseconds.

    Raises UserError that names the file or part when the folder is missing, is a single file, is of another pipeline
    class, lacks a part, has a part that the loop cannot drive, or when a weights file is a Git LFS pointer or cut off.
    """
    folder = Path(folder)
    if folder.is_file():
        _refuse_file(folder)
    if not (folder / "model_index.json").is_file():
        raise UserError(
            f"model folder {folder} has no model_index.json. "
            "Give a diffusers folder, as pipeline.save_pretrained() writes it."
        )
    index = _read_json(folder, folder / "model_index.json")
    _check_class(folder, index)
    for part, classes in _CLASSES.items():
        _check_part(folder, index, part, classes)
    if not any((folder / "tokenizer" / name).is_file() for name in _VOCABULARIES):
        raise _refuse(folder, f"its tokenizer has none of {', '.join(_VOCABULARIES)}.", "Download the folder again.")
    _check_unet(folder)
    _check_scheduler(folder, index)
    for part in ("unet", "vae", "text_encoder"):
        _check_weights(folder, part)


def _refuse_file(path: Path) -> None:
    if path.suffix.lower() in _CHECKPOINTS:
        raise UserError(
            f"model {path} is a single-file checkpoint, and a diffusers folder is needed. Convert it once with "
            f"diffusers: StableDiffusionPipeline.from_single_file({path.name!r}).save_pretrained({path.stem!r}), and "
            "give the folder."
        )
    raise UserError(f"model {path} is a file. Give a diffusers folder, as pipeline.save_pretrained() writes it.")


def _read_json(folder: Path, path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refuse(folder, f"{path.name} cannot be read ({error}).", "Download the folder again.") from error
    if not isinstance(value, dict):
        raise _refuse(folder, f"{path.name} is not a JSON object.", "Download the folder again.")
    return value


def _check_class(folder: Path, index: Mapping) -> None:
    name = index.get("_class_name")
    if isinstance(name, (list, tuple)):  # a pipeline with code of its own: [module, class]
        name = name[-1] if name else None
    if name not in PIPELINES:
        raise _refuse(
            folder,
            f"it holds a {name}.",
            "The headless way drives Stable Diffusion 1 and 2 (StableDiffusionPipeline); give such a folder, or train "
            "this model with the nodes in ComfyUI.",
        )


def _check_part(folder: Path, index: Mapping, part: str, classes: tuple[str, ...]) -> None:
    entry = index.get(part)
    name = entry[-1] if isinstance(entry, list) and entry else None
    if name is None or not (folder / part).is_dir():
        raise _refuse(folder, f"it has no {part}.", f"Put the folder {part} there, or download the whole model again.")
    if classes and name not in classes:
        raise _refuse(
            folder, f"its {part} is a {name}, and {' or '.join(classes)} is needed.", "Give another model folder."
        )


def _check_unet(folder: Path) -> None:
    """Raises UserError for a UNet with further inputs (inpainting, SDXL, LCM), or one that does not fit the VAE."""
    unet, vae = (_read_json(folder, folder / part / "config.json") for part in ("unet", "vae"))
    channels, latent, made = unet.get("in_channels", 4), vae.get("latent_channels", 4), unet.get("out_channels", 4)
    if channels != latent:
        kind = " (an inpainting model)" if channels == 2 * latent + 1 else ""
        raise _refuse(
            folder,
            f"its UNet takes {channels} channels{kind}, and the VAE's latents have {latent}.",
            "Give a text-to-image model.",
        )
    if made != channels:
        raise _refuse(
            folder, f"its UNet predicts {made} channels of {channels} (a learned variance).", "Give another model."
        )
    if further := [name for name in _PLAIN if unet.get(name) is not None]:
        raise _refuse(
            folder,
            f"its UNet has further inputs ({', '.join(f'{n}={unet[n]!r}' for n in further)}), which are not given.",
            "Give a plain Stable Diffusion 1 or 2 model.",
        )


def _check_scheduler(folder: Path, index: Mapping) -> None:
    """Raises UserError unless the scheduler's config describes a noise schedule that DPM-Solver can take."""
    import diffusers

    entry = index.get("scheduler")
    name = entry[-1] if isinstance(entry, list) and entry else None
    if name is None or not (folder / "scheduler" / "scheduler_config.json").is_file():
        raise _refuse(folder, "it has no scheduler.", "Put scheduler/scheduler_config.json there.")
    config = _read_json(folder, folder / "scheduler" / "scheduler_config.json")
    remedy = "Save the model with another scheduler, such as DDIMScheduler or DPMSolverMultistepScheduler."
    if not hasattr(diffusers, name):
        raise _refuse(folder, f"its scheduler {name} is unknown to diffusers {diffusers.__version__}.", remedy)
    if config.get("use_flow_sigmas") or all(
        config.get(key) is None for key in ("beta_start", "beta_schedule", "trained_betas")
    ):
        raise _refuse(folder, f"its scheduler {name} has no table of betas, so it is of another kind of model.", remedy)
    if str(config.get("variance_type")).startswith("learned"):
        raise _refuse(folder, f"its scheduler expects a learned variance ({config['variance_type']}).", remedy)
    check_prediction_type(config.get("prediction_type", "epsilon"))


def check_prediction_type(kind: str) -> None:
    """Raises UserError for a prediction type other than epsilon and v_prediction."""
    if kind not in ("epsilon", "v_prediction"):
        raise UserError(
            f"prediction type {kind!r} of this model is not supported. Use a model with epsilon or v_prediction."
        )


def _check_weights(folder: Path, part: str) -> None:
    for path in sorted((folder / part).glob("*.safetensors")):
        if said := damage(path):
            raise UserError(f"model folder {folder} cannot be loaded as a StableDiffusionPipeline: {said}")


def load_parts(folder: Path) -> dict[str, torch.nn.Module]:
    """UNet, VAE and text encoder of a checked folder, float32 on the CPU, with exactly the weights of their files.

    Libraries fill missing weights at random and only log it. Raises UserError that names every missing, unexpected or
    mis-shaped weight, OSError, ValueError or TypeError as the libraries do.
    """
    import diffusers
    import transformers

    index = _read_json(folder, folder / "model_index.json")
    loaded = {}
    for part in ("unet", "vae", "text_encoder"):
        library, more = diffusers, {}
        if part == "text_encoder":  # transformers names weights of another shape in its loading info alone
            library, more = transformers, {"ignore_mismatched_sizes": True}
        model, info = getattr(library, index[part][-1]).from_pretrained(
            folder / part,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **more,
        )
        check_keys(info, f"{part} of {folder}")
        loaded[part] = model
    return loaded


def check_tokenizer(tokenizer, text_encoder: torch.nn.Module, folder: Path) -> None:
    """Raises UserError when the tokenizer makes longer rows, or other ids, than the text encoder has places for."""
    places, rows = text_encoder.config.max_position_embeddings, text_encoder.get_input_embeddings().num_embeddings
    if tokenizer.model_max_length > places:
        raise _refuse(
            folder,
            f"its tokenizer makes up to {tokenizer.model_max_length} tokens, and the text encoder takes {places}.",
            f"Set model_max_length to {places} in tokenizer/tokenizer_config.json, or download the folder again.",
        )
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest < 1 or highest >= rows:
        raise _refuse(
            folder,
            f"its tokenizer's ids go to {highest}, and the text encoder has {rows} embeddings.",
            "Put the tokenizer and text encoder of the same model there.",
        )


def check_keys(info: Mapping, what: str) -> None:
    """Raises UserError that names every weight which diffusers' or transformers' loading info calls wrong."""
    said = []
    for kind in ("missing", "unexpected", "mismatched"):
        keys = [_key_words(k) for k in info.get(f"{kind}_keys") or ()]
        keys = sorted(k for k in keys if not k.split(" ")[0].endswith(_HARMLESS))
        if keys:
            shown = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
            word = {"mismatched": "of another shape"}.get(kind, kind)
            said.append(f"{len(keys)} {word}: {shown}")
    said += [str(message) for message in info.get("error_msgs") or ()]
    if said:
        raise UserError(
            f"the weights of {what} do not fit its config.json: {'; '.join(said)}. Missing weights would be random. "
            "Download weights and config from the same place, or save the model again."
        )


def _key_words(key: object) -> str:
    """A key of loading info; for one of another shape with both shapes, the file's first."""
    if isinstance(key, tuple):
        name, file, model = key
        return f"{name} ({tuple(file)} in the file, {tuple(model)} in the model)"
    return str(key)
