"""Scorers' models under ComfyUI's memory management: loaded when asked, put aside when the sampler needs the room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from . import host


class _Holder(nn.Module):
    """ComfyUI writes a `device` onto the models that it manages, which those of transformers do not allow."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class ResidentEmbedder:
    """An embedder (torch model in `_model`, place in `device`) whose model ComfyUI moves; fits the same protocol."""

    def __init__(self, embedder: Any) -> None:
        model = embedder._model
        if isinstance(getattr(type(model), "device", None), property):
            model = embedder._model = _Holder(model)
        self.name, self.fingerprint = embedder.name, embedder.fingerprint
        self._embedder = embedder
        self._patcher = host.managed(model)

    def _load(self) -> None:
        host.load(self._patcher, 0, whole=True)
        self._embedder.device = self._patcher.load_device

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        self._load()
        return self._embedder.embed_images(images)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray | None:
        if len(texts):
            self._load()
        return self._embedder.embed_texts(texts)

    @property
    def device(self) -> torch.device:
        return self._embedder.device
