"""Loads models of any class that is driven: a diffusers folder, or a single file with a folder of configs."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import UserError
from ...settings import SamplingSettings
from ...weights_file import damage, read_header
from .folder import PIPELINES, check_keys, check_model_folder
from .loras import merge_lora
from .model import DiffusersTextToImage, load_pipeline
from .pipeline_model import PipelineTextToImage
from .pipelines import DRIVEN, component
from .quantized import check_quantize, keep_layout, quantize, stored_quantization

Model = DiffusersTextToImage | PipelineTextToImage
_IN_FILE = {
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.", "text_encoders."),
}
"""Starts of keys of a single file that holds these parts too."""
ERRORS = (OSError, ValueError, TypeError, RuntimeError, NotImplementedError, ImportError, AttributeError, KeyError)


def pipeline_class(path: Path, configs: Path | None = None) -> str:
    """The class name of a model folder, or of a single file's folder of configs. Reads small files only.

    Raises UserError when there is none, or when its class is not driven.
    """
    folder = model_folder(Path(path), configs)
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"model folder {folder} has no model_index.json. "
            "Give a diffusers folder, as pipeline.save_pretrained() writes it."
        )
    name = _read(index).get("_class_name")
    if name in PIPELINES:
        return "StableDiffusionPipeline"
    if not isinstance(name, str) or name not in DRIVEN:
        raise UserError(
            f"model folder {folder} cannot be loaded: it holds a {name}. The headless way drives "
            f"StableDiffusionPipeline, {', '.join(DRIVEN)}. Give a folder of one of these, or train this model with "
            "the nodes in ComfyUI."
        )
    return name


def model_folder(path: Path, configs: Path | None) -> Path:
    """The folder that holds model_index.json. Raises UserError for a single file without a folder of configs."""
    if path.is_file() and configs is None:
        if path.suffix.lower() != ".safetensors":
            raise UserError(
                f"model {path} is a {path.suffix} file. Only diffusers folders and .safetensors are loaded, because "
                "other files can run code when they are opened. Convert it to .safetensors if you trust it."
            )
        raise UserError(
            f"model {path} is a single file, which holds no configs and no tokenizers. Set model.configs to a "
            "diffusers folder of its base model (its weights are used only for parts that the file lacks), or convert "
            "the file once: Pipeline.from_single_file(...).save_pretrained(...)."
        )
    return configs if path.is_file() and configs is not None else path


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Download the model folder again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object. Download the model folder again.")
    return found


def check_model(path: Path, configs: Path | None = None) -> str:
    """Check a model by its small files and the headers of its weights; return its pipeline class.

    Raises UserError as `pipeline_class` does, and for a part that is missing, a Git LFS pointer or cut off.
    """
    name, folder = pipeline_class(path, configs), model_folder(Path(path), configs)
    if Path(path).is_file():
        if said := damage(Path(path)):
            raise UserError(f"model {path} cannot be loaded: {said}")
        return name
    if name == "StableDiffusionPipeline":
        check_model_folder(folder)
        return name
    for part, _, _ in listed_parts(folder):
        if not (folder / part).is_dir():
            raise refuse(folder, f"it has no {part}. Put the folder {part} there, or download the whole model again.")
        _weights(folder, part)
    return name


def check_quantized(
    path: Path, configs: Path | None, device: str, quantization: str | None, merges: bool = False
) -> str | None:
    """Name of the quantization that a model is stored in, if any. Reads small files only.

    quantization: the setting, one of `KINDS`. merges: whether LoRAs are to be merged. Raises UserError as
    `stored_quantization` and `check_quantize`, and for a stored quantization together with either of both.
    """
    if quantization is not None:
        check_quantize(quantization, device)
    stored = None if Path(path).is_file() else stored_quantization(model_folder(Path(path), configs), device)
    if stored is not None and quantization is not None:
        raise UserError(
            f"model.quantize is {quantization}, but model folder {path} is quantized already ({stored}). Leave "
            "model.quantize out, or give the unquantized model."
        )
    if stored is not None and merges:
        raise UserError(
            f"a LoRA cannot be merged into the quantized weights of model folder {path} ({stored}). Give the "
            "unquantized model and set model.quantize: LoRAs are merged before."
        )
    return stored


def refuse(folder: Path, reason: str) -> UserError:
    return UserError(f"model folder {folder} cannot be loaded: {reason}")


def listed_parts(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(part, library, class) of each part that a folder's index lists; parts that are null are left out."""
    for part, entry in _read(folder / "model_index.json").items():
        if isinstance(entry, list) and len(entry) == 2 and entry[0] is not None and part != "safety_checker":
            yield part, entry[0], entry[1]


def _weights(folder: Path, part: str) -> str | None:
    """The variant of a part's weights, such as "fp16"; None for plain ones, or for a part without weights.

    Raises UserError for weights that are pickles, Git LFS pointers, or cut off.
    """
    files = sorted((folder / part).glob("*.safetensors"))
    pickles = [*(folder / part).glob("*.bin"), *(folder / part).glob("*.pt")]
    if pickles and not files:
        raise refuse(
            folder,
            f"{part} has its weights as {pickles[0].name}. Only .safetensors is loaded, because a pickle can run code. "
            "Load the model once with diffusers and save it: pipeline.save_pretrained(folder).",
        )
    variants = {_variant(file.name) for file in files}
    chosen = None if None in variants or not variants else sorted(filter(None, variants))[0]
    for file in files:
        if _variant(file.name) == chosen and (said := damage(file)):
            raise refuse(folder, said)
    return chosen


def _variant(name: str) -> str | None:
    """ "model.fp16.safetensors" -> "fp16", "model.fp16-00001-of-00002.safetensors" -> "fp16"."""
    middle = name.removesuffix(".safetensors").split(".")[1:]
    return middle[0].split("-")[0] if middle else None


def _loaded(folder: Path, part: str, library: str, kind: str, dtype: torch.dtype) -> torch.nn.Module:
    """A part with exactly the weights of its files, on the CPU. Raises UserError as `check_keys`."""
    source = importlib.import_module({"diffusers": "diffusers", "transformers": "transformers"}[library])
    more = {"ignore_mismatched_sizes": True} if library == "transformers" else {}  # named in its loading info alone
    model, info = getattr(source, kind).from_pretrained(
        folder / part, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True,
        variant=_weights(folder, part), **more,
    )  # fmt: skip
    check_keys(info, f"{part} of {folder}")
    return model


def _models(folder: Path, denoiser_dtype: torch.dtype, without: tuple[str, ...]) -> dict[str, torch.nn.Module]:
    """The models of a folder. A VAE is in float32: half precision overflows in some."""
    return {
        part: _loaded(folder, part, library, kind, torch.float32 if part == "vae" else denoiser_dtype)
        for part, library, kind in listed_parts(folder)
        if library in ("diffusers", "transformers") and not part.startswith(without) and _has_weights(folder / part)
    }


def _has_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _pipeline(path: Path, configs: Path | None, name: str, dtype: torch.dtype) -> Any:
    """The pipeline on the CPU. Raises UserError when a part cannot be loaded."""
    import diffusers

    folder, kind = model_folder(path, configs), getattr(diffusers, name)
    try:
        if not path.is_file():
            models = _models(folder, dtype, without=()) | _no_checker(kind)
            return kind.from_pretrained(folder, **models, local_files_only=True)
        keys = read_header(path) or {}
        held = tuple(part for part, starts in _IN_FILE.items() if any(key.startswith(starts) for key in keys))
        models = _models(folder, dtype, without=("transformer", "unet", *held)) | _no_checker(kind)
        if held:
            pipe = kind.from_single_file(str(path), config=str(folder), local_files_only=True, dtype=dtype, **models)
        else:
            pipe = kind.from_pretrained(folder, **_denoiser(path, folder, dtype), **models, local_files_only=True)
    except UserError:
        raise
    except ERRORS as error:
        reason = " ".join(str(error).split())[:400]
        if "meta tensor" in reason:  # torch's words for a weight that no file has filled
            raise UserError(
                f"model {path} lacks weights that the config of {name} asks for. Give the whole file, or as "
                "model.configs the base model that fits it."
            ) from error
        raise UserError(f"model {path} cannot be loaded as a {name}: {reason}") from error
    _check_whole(pipe, path)
    return pipe


def _denoiser(path: Path, folder: Path, dtype: torch.dtype) -> dict[str, torch.nn.Module]:
    """The denoiser of a file that holds it alone, by name. Raises UserError for weights that are missing."""
    import diffusers

    part, kind = next((part, kind) for part, _, kind in listed_parts(folder) if part in ("transformer", "unet"))
    load = getattr(diffusers, kind).from_single_file
    return {part: load(str(path), config=str(folder), subfolder=part, local_files_only=True, torch_dtype=dtype)}


def _no_checker(kind: type) -> dict[str, Any]:
    """The arguments that leave Stable Diffusion's safety checker out."""
    if "safety_checker" not in kind._optional_components:
        return {}
    return {"safety_checker": None, "requires_safety_checker": False}


def _check_whole(pipe: Any, path: Path) -> None:
    """Raises UserError that names weights which the file does not hold (they are on no device)."""
    for part, model in pipe.components.items():
        if isinstance(model, torch.nn.Module):
            missing = [name for name, weight in model.named_parameters() if weight.device.type == "meta"]
            if missing:
                raise UserError(
                    f"model {path} lacks {len(missing)} weights of {part} (first: {missing[0]}). Give the whole file, "
                    "or the base model that fits it as model.configs."
                )


def load_model(
    path: Path,
    configs: Path | None,
    device: str,
    precision: str,
    sampling: SamplingSettings,
    loras: Mapping[Path, float],
    quantization: str | None = None,
) -> Model:
    """Load a model, with LoRAs (strength by file) merged into its weights; then quantize its denoiser (`KINDS`).

    Raises UserError when it is of another class, when a weight is missing, unexpected or does not fit, when a LoRA
    is of another model, and as `check_quantized`.
    """
    name = check_model(path, configs)
    stored = check_quantized(path, configs, device, quantization, bool(loras))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if name == "StableDiffusionPipeline" and not Path(path).is_file() and stored is None:
        pipe = load_pipeline(path, "cpu")
    else:
        pipe = _pipeline(Path(path), configs, name, dtype)
    pipe.set_progress_bar_config(disable=True)
    for lora, strength in loras.items():
        merge_lora(pipe, lora, strength)
    denoiser = getattr(pipe, component(pipe))
    if quantization is not None:
        denoiser = denoiser if denoiser.dtype == dtype else denoiser.to(dtype)
        quantize(denoiser, quantization, torch.device(device))
    keep_layout(denoiser)
    if name == "StableDiffusionPipeline":
        model: Model = DiffusersTextToImage(pipe.to(device), precision)
    else:
        denoiser.to(device)
        model = PipelineTextToImage(pipe, precision, sampling.width, sampling.height)
    model.set_loras(loras)
    return model
