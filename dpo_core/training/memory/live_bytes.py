"""Counts the bytes of live tensors, real or fake, and their peak."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside, every operation's results count until their storage is freed; a storage with several views counts once.

    `live`, `peak`: bytes now, and the most so far. Tensors made earlier count from a call of `add` on. Not counted is
    what a kernel takes inside one operation (workspaces), nor what an allocator loses between tensors. Storages are
    watched by weak references, so nothing is kept alive. (The way of torch.distributed._tools.mem_tracker.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.paused = False
        """While set, new storages do not count, also later."""
        self._known: dict[int, weakref.ref] = {}

    def add(self, tensors: Iterable[Any]) -> None:
        """Count these tensors' storages, where they are not known yet; other values are passed over."""
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor)

    def ignore(self, tensors: Iterable[Any]) -> None:
        """Never count these tensors' storages."""
        before, self.paused = self.paused, True
        self.add(tensors)
        self.paused = before

    def _watch(self, tensor: torch.Tensor) -> None:
        parts = getattr(tensor, "__tensor_flatten__", None)
        if parts is not None:  # a subclass of several tensors, such as a quantized one
            self.add(getattr(tensor, name) for name in parts()[0])
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, 0 if self.paused else storage.nbytes()
        if key in self._known:
            return
        self._known[key] = weakref.ref(storage, lambda _gone: self._forget(key, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _forget(self, key: int, size: int) -> None:
        if self._known.pop(key, None) is not None:
            self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = self._call(func, args, kwargs or {})
        self.add([result] if isinstance(result, torch.Tensor) else tree_leaves(result))
        return result

    def _call(self, func: Any, args: tuple, kwargs: dict) -> Any:
        return func(*args, **kwargs)
