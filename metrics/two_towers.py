"""Image-text models of transformers by local folder: CLIP (PickScore too), SigLIP, and SigLIP 2 of both kinds.

Sources: CLIP arXiv 2103.00020, PickScore 2305.01569, SigLIP 2303.15343, SigLIP 2 2502.14786.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import MetricsError
from .file_kinds import short_reason
from .model_files import TOWER_TYPES, TOWERS_REMEDY, check_towers_folder, read_json
from .model_parts import whole_model
from .torch_embedder import BATCH, LOADING_ERRORS, TorchEmbedder, vision_preprocess

_ABSENT = ("position_ids", "num_batches_tracked")
"""Ends of buffers that older files hold and newer models compute, or the other way round."""


class TwoTowerEmbedder(TorchEmbedder):
    """CLIPModel, SiglipModel or Siglip2Model from a folder in transformers' form, in float32.

    `folder` holds config.json, preprocessor_config.json, model.safetensors (or its parts with their index) and the
    tokenizer's files. Texts of SigLIP are in lower case and padded to the tower's length, 64 tokens, as in its
    training; texts of CLIP are cut at 77 tokens. Pixels: images of CLIP are cropped around the centre; those of SigLIP
    and of SigLIP 2 with a fixed resolution are squashed, as their processors do; SigLIP 2 NaFlex keeps the aspect with
    at most `max_num_patches` patches. Raises MetricsError that says which file is missing, or that the weights do not
    fit the config.

    `scale` is the factor of the cosine in the model's own logit, exp(logit_scale); `bias` its constant (SigLIP), else
    0. A cosine and a sigmoid of SigLIP's logit rank pictures alike, so alignment is the cosine, as for CLIP.
    """

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        folder = Path(folder)
        config = check_towers_folder(folder)
        self._kind = config["model_type"]
        settings = read_json(folder / "preprocessor_config.json")
        model = _model(folder)
        self._tokenizer = _tokenizer(folder)
        self._length = int(model.config.text_config.max_position_embeddings)
        self.scale = float(model.logit_scale.detach().exp())
        self.bias = float(model.logit_bias.detach()) if hasattr(model, "logit_bias") else 0.0
        if self._kind == "siglip2":
            preprocess: Any = _Patches(folder, settings)
        else:
            mode = "shortest" if self._kind == "clip" else "squash"
            preprocess = vision_preprocess(settings, config.get("vision_config", {}), mode)
        marks = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tokenizer_files(folder)}
        super().__init__(model, preprocess, f"{self._kind} {folder.name}", [config, settings, marks], device)

    def _encode(self, pixels: Any) -> torch.Tensor:
        given = dict(pixels) if self._kind == "siglip2" else {"pixel_values": pixels}
        return _rows(self._model.get_image_features(**given))

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, d] of norm 1; texts longer than the tower's context are cut."""
        self._wake()
        given = list(texts) or [""]
        parts = [self._text_rows(given[i : i + BATCH]) for i in range(0, len(given), BATCH)]
        return self._to_numpy(parts)[: len(texts)]

    def _text_rows(self, texts: Sequence[str]) -> torch.Tensor:
        siglip = self._kind != "clip"
        tokens = self._tokenizer(
            [text.lower() for text in texts] if siglip else list(texts),
            padding="max_length" if siglip else True,
            max_length=self._length,
            truncation=True,
            return_tensors="pt",
        )
        ids = {"input_ids": tokens["input_ids"].to(self.device)}
        if not siglip:  # SigLIP was trained without a mask: its text tower attends to the padding
            ids["attention_mask"] = tokens["attention_mask"].to(self.device)
        return _rows(self._model.get_text_features(**ids))


class _Pixels(dict):
    """Inputs of SigLIP 2 NaFlex by name, which move to a device together."""

    def to(self, device: torch.device) -> _Pixels:
        return _Pixels({name: value.to(device) for name, value in self.items()})


class _Patches:
    """Preprocessing of SigLIP 2 NaFlex by its own processor: images uint8 [n, H, W, 3] to patches, mask and shapes."""

    def __init__(self, folder: Path, settings: dict) -> None:
        from transformers import AutoImageProcessor

        self._processor = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
        self._said = f"naflex {sorted(settings.items())!r}"

    def __call__(self, images: np.ndarray) -> _Pixels:
        return _Pixels(self._processor(list(images), return_tensors="pt", input_data_format="channels_last"))

    def __repr__(self) -> str:
        return self._said


def _rows(found: Any) -> torch.Tensor:
    """Features [n, d], which transformers 5 gives within an output."""
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder that its tokenizer depends on, in order."""
    names = ("tokenizer*", "vocab.*", "merges.txt", "spiece.model", "special_tokens_map.json", "added_tokens.json")
    return sorted({p for name in names for p in folder.glob(name) if p.is_file()})


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (*LOADING_ERRORS, ImportError) as error:
        raise MetricsError(
            f"cannot load the tokenizer in {folder}: {short_reason(error)}. {TOWERS_REMEDY.format(folder=folder)}"
        ) from error


def _model(folder: Path) -> torch.nn.Module:
    """The model, float32 on the CPU with every weight loaded. Raises MetricsError otherwise."""
    model = whole_model(folder, _ABSENT)
    if model.config.model_type not in TOWER_TYPES:
        raise MetricsError(f"{folder} is a {model.config.model_type} model: choose one of {', '.join(TOWER_TYPES)}.")
    return model
