"""Put scorers' models under ComfyUI's memory management: loaded on use, offloaded when the sampler needs memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from . import host


class _Holder(nn.Module):
    """Wrapper for models whose `device` is read-only (transformers).

    ComfyUI sets a `device` on the models that it manages. All else that is asked of it is the model's own: an embedder
    uses more of its model than `forward`.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("inner", "device"):
                raise
            return getattr(self.inner, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class ResidentEmbedder:
    """An embedder whose model is moved by ComfyUI; it fits the same protocol as the wrapped one.

    The wrapped embedder must have its torch model in `_model` and its device in `device`. `scale` and `bias` of an
    image-text model's logit are passed on, for the quality scorer.
    """

    def __init__(self, embedder: Any) -> None:
        model = embedder._model
        if isinstance(getattr(type(model), "device", None), property):
            model = embedder._model = _Holder(model)
        self.name, self.fingerprint = embedder.name, embedder.fingerprint
        self.scale, self.bias = getattr(embedder, "scale", None), getattr(embedder, "bias", 0.0)
        self._embedder = embedder
        self._patcher = host.managed(model)

    def _load(self) -> None:
        host.load(self._patcher, 0, whole=True)
        self._embedder.device = self._patcher.load_device

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        self._load()
        return self._embedder.embed_images(images)

    def embed_patches(self, images: np.ndarray) -> np.ndarray:
        self._load()
        return self._embedder.embed_patches(images)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray | None:
        if len(texts):
            self._load()
        return self._embedder.embed_texts(texts)

    @property
    def device(self) -> torch.device:
        return self._embedder.device
