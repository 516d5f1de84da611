"""What the torch embedders share: the protocol, and a base with batches, devices, fingerprint and a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn import functional as F

from .errors import MetricsError
from .fingerprints import fingerprints
from .pictures import Preprocess, check_images

BATCH = 64
# open_clip raises AssertionError or AttributeError when weights belong to another architecture.
LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    SafetensorError,
)


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


class TorchEmbedder:
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


def vision_preprocess(settings: dict, config: dict, mode: str = "shortest") -> Preprocess:
    """Preprocessing of a folder of transformers; the size is the crop's, else the resize's, else the config's.

    settings: preprocessor_config.json; config: that of the vision tower; mode: see `Preprocess`.
    """
    crop = settings.get("crop_size") if settings.get("do_center_crop", True) else None
    size = crop or settings.get("size") or config.get("image_size", 224)
    if isinstance(size, dict):
        size = (size["height"], size["width"]) if "height" in size else (size["shortest_edge"],) * 2
    elif isinstance(size, int):
        size = (size, size)
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if not mean or not std:
        raise MetricsError(
            "preprocessor_config.json has no image_mean and image_std: download the file again from the model's page."
        )
    bilinear = settings.get("resample", 3) == 2  # PIL's numbers: 2 bilinear, 3 bicubic
    return Preprocess(
        (int(size[0]), int(size[1])), tuple(mean), tuple(std), mode, "bilinear" if bilinear else "bicubic"
    )
