"""Checks model folders and files before a library loads them, because the library's errors offer no remedy."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path

from ..dpo_core.weights_file import damage
from .errors import MetricsError
from .file_kinds import kind_of_file

HUB_PREFIX = "hf-hub:"
CLIP_WEIGHTS, DINO_WEIGHTS = "open_clip_model.safetensors", "model.safetensors"
_FROM_HUB = ", or 'hf-hub:<organisation>/<model>' to download one"
_NAMED = f", or name it with '{HUB_PREFIX}'"
_WHOLE_NAMED = f", or name the whole model with '{HUB_PREFIX}'"
CLIP_REMEDY = (
    "Put an open_clip model there (open_clip_config.json, open_clip_model.safetensors, tokenizer files), for instance "
    "by\n    hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K open_clip_config.json open_clip_model.safetensors "
    "--local-dir {folder}\n"
    f"or give another folder{_FROM_HUB}."
)
DINO_REMEDY = (
    "Put a transformers model there (config.json, preprocessor_config.json, model.safetensors), for instance by\n"
    "    hf download facebook/dinov2-base config.json preprocessor_config.json model.safetensors --local-dir {folder}\n"
    "or give another folder."
)
TOWER_TYPES = ("clip", "siglip", "siglip2")
"""`model_type` in config.json of the image-text models that are loaded by transformers."""
TOWERS_REMEDY = (
    "Put an image-text model in transformers' form there (config.json, preprocessor_config.json, model.safetensors, "
    "tokenizer files), for instance by\n    hf download google/siglip2-base-patch16-224 --local-dir {folder}\n"
    "or give another folder. PickScore_v1 needs the tokenizer files of laion/CLIP-ViT-H-14-laion2B-s32B-b79K beside it."
)
VLM_REMEDY = (
    "Put a vision-language model in transformers' form there (config.json, model.safetensors or its parts with their "
    "index, tokenizer, preprocessor_config.json, chat template), for instance by\n"
    "    hf download Qwen/Qwen3-VL-4B-Instruct --local-dir {folder}\nor give another folder."
)
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
WEIGHT_SUFFIXES = (".safetensors", *PICKLES)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")


def without_hub(message: str) -> str:
    """A message without its hints at hub names, for places that take local files alone, such as nodes."""
    for hint in (_FROM_HUB, _NAMED, _WHOLE_NAMED):
        message = message.replace(hint, "")
    return message


def read_json(path: Path) -> dict:
    """Read a JSON object; MetricsError that names the file if it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MetricsError(f"cannot read {path}: {error}. Download the file again.") from error
    if not isinstance(value, dict):
        raise MetricsError(f"{path} is not a JSON object: download the file again.")
    return value


def check_safetensors(path: Path) -> Path:
    """Return `path` if it is an existing .safetensors file; MetricsError otherwise.

    Pickles are refused because opening one can run code.
    """
    if path.suffix != ".safetensors":
        raise MetricsError(
            f"{path} is a {path.suffix or 'nameless'} file: only .safetensors weights are loaded, since a pickle can "
            "run code. Download the .safetensors of the same model, or convert the file if you trust it."
        )
    if not path.is_file():
        raise MetricsError(
            f"the weights file {path} does not exist: put the model's .safetensors there, or give another path."
        )
    if kind := kind_of_file(path):
        raise MetricsError(
            f"{path.name} is {kind}, which cannot score pictures: choose an image-text model of open_clip, or a DINOv2 "
            "folder."
        )
    return path


def check_architecture(architecture: str | None, path: Path) -> dict:
    """open_clip's config of an architecture for which a weights file alone is enough; MetricsError otherwise."""
    import open_clip

    if architecture is None:
        raise MetricsError(
            f"{path} needs the name of its architecture ('ViT-B-32=...'), which a weights file does not contain. Add "
            "it, or give a folder."
        )
    config = open_clip.get_model_config(architecture)
    if config is None:
        near = get_close_matches(architecture, open_clip.list_models(), n=5, cutoff=0.4)
        raise MetricsError(
            f"open_clip knows no architecture {architecture!r}. Choose one it knows; similar are {near}."
        )
    if {"hf_tokenizer_name", "hf_model_name"} & config["text_cfg"].keys():
        raise MetricsError(
            f"{architecture} needs a tokenizer or text tower from the hub, which a weights file does not contain: give "
            f"the model's whole folder{_NAMED}."
        )
    return config


def _check(folder: Path, needed: tuple[str, ...], remedy: str) -> None:
    remedy = remedy.format(folder=folder)
    if not folder.is_dir():
        raise MetricsError(f"the model folder {folder} does not exist. {remedy}")
    missing = [name for name in needed if not (folder / name).is_file()]
    if not missing:
        for path in sorted(folder.glob("*.safetensors")):
            if said := damage(path):
                raise MetricsError(said)
        return
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    why = (
        f" {', '.join(pickles)} is not used: only .safetensors is loaded, since a pickle can run code."
        if pickles
        else ""
    )
    raise MetricsError(f"{folder} lacks {', '.join(missing)}.{why} {remedy}")


def check_clip_folder(folder: Path) -> dict:
    """Read open_clip_config.json of a folder that open_clip can load without network; MetricsError otherwise."""
    _check(folder, ("open_clip_config.json", CLIP_WEIGHTS), CLIP_REMEDY)
    config = read_json(folder / "open_clip_config.json")
    text = config.get("model_cfg", {}).get("text_cfg")
    if not isinstance(text, dict) or "vision_cfg" not in config["model_cfg"]:
        raise MetricsError(
            f"{folder / 'open_clip_config.json'} has no model_cfg with vision_cfg and text_cfg, so it is not a config "
            "of open_clip: download it again from the model's page."
        )
    if text.get("hf_tokenizer_name") and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise MetricsError(
            f"{folder} lacks the tokenizer ({text['hf_tokenizer_name']}; none of {', '.join(TOKENIZER_FILES)}). "
            + CLIP_REMEDY.format(folder=folder)
        )
    if text.get("hf_model_name") and not Path(text["hf_model_name"]).is_dir():
        raise MetricsError(
            f"the text tower of {folder} is {text['hf_model_name']} from the hub, which would be downloaded: choose a "
            f"model whose text tower is open_clip's own{_WHOLE_NAMED}."
        )
    return config


def check_dino_folder(folder: Path) -> dict:
    """Read config.json of a transformers vision model's folder; MetricsError when a file is missing."""
    _check(folder, ("config.json", "preprocessor_config.json", *weights_of(folder)), DINO_REMEDY)
    return read_json(folder / "config.json")


def weights_of(folder: Path) -> tuple[str, ...]:
    """Names of the weights files that a folder of transformers needs: one file, or an index and the parts it names."""
    index = folder / (DINO_WEIGHTS + ".index.json")
    if not index.is_file():
        return (DINO_WEIGHTS,)
    return (index.name, *sorted({str(part) for part in read_json(index).get("weight_map", {}).values()}))


def check_towers_folder(folder: Path) -> dict:
    """Read config.json of a folder with an image-text model in transformers' form; MetricsError for what is wrong."""
    _check(folder, ("config.json", "preprocessor_config.json", *weights_of(folder)), TOWERS_REMEDY)
    config = read_json(folder / "config.json")
    if config.get("model_type") not in TOWER_TYPES:
        raise MetricsError(
            f"{folder} holds a model of type {config.get('model_type')!r}: an image-text model is needed, one of "
            f"{', '.join(TOWER_TYPES)}. {TOWERS_REMEDY.format(folder=folder)}"
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise MetricsError(
            f"{folder} lacks the tokenizer (none of {', '.join(TOKENIZER_FILES)}). "
            + TOWERS_REMEDY.format(folder=folder)
        )
    return config


def check_vlm_folder(folder: Path) -> dict:
    """Read config.json of a vision-language model's folder; MetricsError when a file is missing."""
    _check(folder, ("config.json", *weights_of(folder)), VLM_REMEDY)
    config = read_json(folder / "config.json")
    if "model_type" not in config:
        raise MetricsError(f"{folder / 'config.json'} names no model_type: download it again from the model's page.")
    return config


_HEADS = ("classifier", "head", "lm_head", "decoder")
"""Starts of weights of a vision model's own task, which embedding does not use."""


def check_fit(folder: Path, info: dict) -> None:
    """Raises MetricsError that names weights of another shape, and those that the model has no place for."""
    shapes = sorted(f"{key[0]} ({tuple(key[1])}, not {tuple(key[2])})" for key in info.get("mismatched_keys") or ())
    strange = sorted(k for k in info.get("unexpected_keys") or () if not k.startswith(_HEADS))
    for keys, what in ((shapes, "have another shape than the model's"), (strange, "are unknown to the model")):
        if keys:
            raise MetricsError(
                f"{len(keys)} weights in {folder} {what} (first: {keys[0]}). Download {DINO_WEIGHTS} and config.json "
                "from the same page."
            )
