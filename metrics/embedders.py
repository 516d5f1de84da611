"""Embedders: map images and texts to unit vectors by open_clip or DINOv2 models.

Weights are local safetensors files. A model is downloaded from the hub only if the user names it with "hf-hub:".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.nn import functional as F

from .errors import MetricsError
from .file_kinds import short_reason
from .fingerprints import fingerprints
from .model_files import DINO_WEIGHTS, check_dino_folder, check_fit, read_json
from .model_parts import LOADING_ERRORS, clip_parts, dino_preprocess
from .pictures import Preprocess, check_images

BATCH = 64


@runtime_checkable
class Embedder(Protocol):
    """Maps images, and texts if it has a text tower, to unit vectors of one space."""

    name: str
    fingerprint: str
    """sha256 of weights, configuration and preprocessing: equal fingerprints give equal embeddings, up to rounding."""

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """float32 [n, d] of norm 1 for uint8 images [n, H, W, 3]; n may be 0."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray | None:
        """float32 [n, d] of norm 1, or None (whatever the texts) without a text tower."""
        ...


def innermost(embedder: Any) -> Any:
    """The embedder that holds the model, inside those that augment or move it."""
    while hasattr(embedder, "_embedder"):
        embedder = embedder._embedder
    return embedder


def rest(embedder: Embedder) -> None:
    """Move an embedder's model off the GPU until its next use, if it supports that.

    Embedders whose memory the host manages need no such call.
    """
    if callable(leave := getattr(embedder, "rest", None)):
        leave()


class OnEmbedder:
    """Base of the scorers that use an embedder."""

    _embedder: Embedder

    def rest(self) -> None:
        """Move the embedder's model off the GPU, if it is on one, until the next score."""
        rest(self._embedder)


class _TorchEmbedder:
    """Base of the torch embedders: batches, devices, fingerprint, and a cache of the last images.

    Fidelity, alignment and guards ask for the same images one after another, so the last result is cached. On a GPU the
    model may `rest` in main memory between two calls.
    """

    def __init__(
        self, model: torch.nn.Module, preprocess: Preprocess, name: str, settings: object, device: str
    ) -> None:
        if str(device).startswith("cuda") and not torch.cuda.is_available():
            raise MetricsError(
                f"device is {device!r}, but torch sees no CUDA device: use 'cpu', or install torch with CUDA."
            )
        self.name, self.device, self.preprocess = name, torch.device(device), preprocess
        self.fingerprint, self.weights, self.architecture = fingerprints(model, [settings, repr(preprocess)])
        self._model = model.eval().requires_grad_(False).to(self.device)
        self._shelf = torch.device("cpu") if self.device.type == "cuda" else None
        self._last: tuple[bytes, np.ndarray] | None = None

    def rest(self) -> None:
        """Move the model off the GPU, if it is on one, until the next call."""
        if self._shelf is not None:
            self._model.to(self._shelf)

    def _wake(self) -> None:
        if self._shelf is not None:
            self._model.to(self.device)

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _encode_patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of the patches [n, rows, columns, d]. Raises MetricsError for a model that has none."""
        raise MetricsError(
            f"{self.name} has no patches, by which fidelity is to be scored: choose a vision transformer, such as "
            "DINOv2, or compare whole pictures."
        )

    @torch.inference_mode()
    def embed_patches(self, images: np.ndarray) -> np.ndarray:
        """float32 [n, rows, columns, d], each patch of norm 1, for uint8 images [n, H, W, 3]; not cached.

        Raises MetricsError for another shape or type, NaN, and a model without patches.
        """
        self._wake()
        return self._in_batches(check_images(images), self._encode_patches)

    @torch.inference_mode()
    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """float32 [n, d] of norm 1 for uint8 images [n, H, W, 3].

        Raises MetricsError for another shape or type, and for NaN embeddings.
        """
        check_images(images)
        key = hashlib.sha256(str(images.shape).encode() + images.tobytes()).digest()
        if self._last is None or self._last[0] != key:
            self._wake()
            self._last = (key, self._in_batches(images, self._encode))
        return self._last[1].copy()

    def _in_batches(self, images: np.ndarray, encode: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        # For no images, embed a black one to learn d, which no two kinds of towers report in the same way.
        some = images if len(images) else np.zeros((1, 8, 8, 3), np.uint8)
        parts = [encode(self.preprocess(some[i : i + BATCH]).to(self.device)) for i in range(0, len(some), BATCH)]
        return self._to_numpy(parts)[: len(images)]

    def _to_numpy(self, parts: list[torch.Tensor]) -> np.ndarray:
        rows = F.normalize(torch.cat(parts).float(), dim=-1).cpu().numpy()
        if not np.isfinite(rows).all():
            raise MetricsError(
                f"{self.name} gave NaN embeddings: its weights are damaged, or belong to another model. Download them "
                "again."
            )
        return rows


class OpenClipEmbedder(_TorchEmbedder):
    """A contrastive image-text model loaded through open_clip, in float32.

    `source` is one of
    - a folder with open_clip_config.json, open_clip_model.safetensors and, where the config names one, a tokenizer;
    - a .safetensors file, with `architecture`, its name in open_clip ("ViT-B-32"; "ViT-B-32-quickgelu" for OpenAI's
      weights). A weights file does not contain its preprocessing: `mean` and `std` (three each, of pixels in 0..1) are
      OpenAI's unless given;
    - "hf-hub:<organisation>/<model>", which is **downloaded** unless it is in the local cache. Nothing else is.
    Raises MetricsError that says which file is missing and how to get it, which architecture is unknown or needs more
    than a file, or that the weights do not fit.
    """

    def __init__(
        self,
        source: str | Path,
        device: str = "cpu",
        architecture: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        changes = {k: tuple(v) for k, v in (("mean", mean), ("std", std)) if v is not None}
        model, self._tokenizer, name, settings = clip_parts(str(source), architecture, changes)
        cfg = model.visual.preprocess_cfg
        height, width = cfg["size"] if isinstance(cfg["size"], (tuple, list)) else (cfg["size"], cfg["size"])
        shape, colours = (int(height), int(width)), (tuple(cfg["mean"]), tuple(cfg["std"]))
        preprocess = Preprocess(shape, *colours, cfg["resize_mode"], cfg["interpolation"], cfg["fill_color"])
        super().__init__(model, preprocess, f"open_clip {name}", settings, device)

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._model.encode_image(pixels, normalize=True)

    def _encode_patches(self, pixels: torch.Tensor) -> torch.Tensor:
        visual = self._model.visual
        tower = getattr(visual, "transformer", None) or getattr(visual, "trunk", None)
        blocks = getattr(tower, "resblocks", None) or getattr(tower, "blocks", None)
        if not blocks or not hasattr(visual, "forward_intermediates"):
            return super()._encode_patches(pixels)
        # The middle block: the patches of the last ones are not trained, only what the image's embedding takes of them.
        middle = [max(0, len(blocks) // 2 - 1)]
        found = visual.forward_intermediates(pixels, indices=middle, stop_early=True, intermediates_only=True)
        return found["image_intermediates"][0].movedim(1, -1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, d] of norm 1; the tokenizer truncates texts longer than the tower's context."""
        self._wake()
        tokens = self._tokenizer(list(texts) or [""])
        parts = [self._model.encode_text(part.to(self.device), normalize=True) for part in tokens.split(BATCH)]
        return self._to_numpy(parts)[: len(texts)]


class DinoV2Embedder(_TorchEmbedder):
    """The class token of DINOv2, or of another vision transformer that AutoModel loads from a folder, in float32.

    It has no text tower. `folder` holds config.json, preprocessor_config.json and model.safetensors. Raises
    MetricsError that says which file is missing and how to get it, or that the weights do not fit the config.
    """

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        from transformers import AutoModel

        folder = Path(folder)
        config = check_dino_folder(folder)
        settings = read_json(folder / "preprocessor_config.json")
        try:
            model, info = AutoModel.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
        except LOADING_ERRORS as error:
            raise MetricsError(
                f"cannot load {folder}: {short_reason(error)}. Do {DINO_WEIGHTS} and config.json belong together?"
            ) from error
        # transformers initialises missing tensors at random and only warns. Only the mask token is never used here.
        missing = sorted(k for k in info["missing_keys"] if not k.endswith("mask_token"))
        if missing:
            raise MetricsError(
                f"the weights in {folder} lack {len(missing)} of the model's tensors ({missing[0]}, ...). "
                f"Download {DINO_WEIGHTS} and config.json from the same page."
            )
        check_fit(folder, info)
        super().__init__(model, dino_preprocess(settings, config), f"dinov2 {folder.name}", [config, settings], device)

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._model(pixel_values=pixels).last_hidden_state[:, 0]

    def _encode_patches(self, pixels: torch.Tensor) -> torch.Tensor:
        # Tokens: class, registers (DINOv2 with registers, DINOv3), patches row by row.
        config = self._model.config
        tokens = self._model(pixel_values=pixels).last_hidden_state
        side = getattr(config, "patch_size", None)
        rows, columns = (n // side for n in pixels.shape[2:]) if isinstance(side, int) else (0, 0)
        tokens = tokens[:, 1 + getattr(config, "num_register_tokens", 0) :]
        if tokens.shape[1] != rows * columns:
            return super()._encode_patches(pixels)
        return tokens.unflatten(1, (rows, columns))

    def embed_texts(self, texts: Sequence[str]) -> None:
        """None: there is no text tower."""
        return None


def load_embedder(source: str | Path, device: str = "cpu") -> Embedder:
    """Load the embedder named by `source`: a folder, "<architecture>=<file>.safetensors", or "hf-hub:<name>".

    A folder is of open_clip or of DINOv2. Raises MetricsError that says what is missing and where to put it.
    """
    folder = Path(source)
    architecture, equals, path = str(source).partition("=")
    if equals and not folder.exists():
        return OpenClipEmbedder(path, device, architecture)
    if (folder / "config.json").is_file() and not (folder / "open_clip_config.json").is_file():
        return DinoV2Embedder(folder, device)
    return OpenClipEmbedder(source, device)
