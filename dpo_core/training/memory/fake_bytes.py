"""Runs a model's code on tensors that have a shape and a type but no data, and counts what would be alive."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from .live_bytes import LiveBytes

_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


class NeedsDevice(Exception):
    """The code asks for what tensors of the meta device do not have."""


class FakeBytes(LiveBytes):
    """Inside, operations run on tensors without data and their live bytes are counted; real tensors are never written.

    The tensors are of the meta device or, with `exact`, FakeTensors that say they are on the CPU (about four times as
    slow). Code under autocast needs these: on meta tensors NeedsDevice is raised. An operation on real tensors alone (a
    prompt's row, a noise level) runs as it is, so that code may read values. A real tensor that meets one without data
    is replaced by one of its shape, once. Attention counts as the fused kernels' (the output and a row of sums).
    """

    def __init__(self, exact: bool = False) -> None:
        super().__init__()
        from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

        self.kind = FakeTensor
        self.fake = FakeTensorMode(allow_non_fake_inputs=True) if exact else None
        self.device = torch.device("cpu" if exact else "meta")
        self._replaced: dict[int, tuple[weakref.ref, torch.Tensor]] = {}
        self._numbers: set[int] = set()
        """Storages of real tensors that the code made from numbers: it may write to them (an optimizer's count)."""
        self._functions = _Functions(exact)

    def __enter__(self) -> FakeBytes:
        super().__enter__()
        self._functions.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._functions.__exit__(*error)
        super().__exit__(*error)

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor without data of this shape and type; the same one for the same tensor."""
        if self.is_own(tensor):
            return tensor
        key = id(tensor)
        if key not in self._replaced:
            gone = weakref.ref(tensor, lambda _gone: self._replaced.pop(key, None))
            self._replaced[key] = (gone, self._made(tensor))
        return self._replaced[key][1]

    def counted(self, tensor: torch.Tensor) -> torch.Tensor:
        """Like `like`, and counts it."""
        found = self.like(tensor)
        self.add([found])
        return found

    def is_own(self, tensor: torch.Tensor) -> bool:
        if self.fake is not None:
            return isinstance(tensor, self.kind) and tensor.fake_mode is self.fake
        return tensor.is_meta and not isinstance(tensor, self.kind)

    def _made(self, tensor: torch.Tensor) -> torch.Tensor:
        if hasattr(tensor, "__tensor_flatten__") and not isinstance(tensor, self.kind):
            from torch.utils._python_dispatch import transform_subclass

            return transform_subclass(tensor, lambda _name, inner: self._made(inner))
        with self._data_free(), torch.no_grad():
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=self.device)

    @contextmanager
    def _data_free(self):
        if self.fake is None:
            yield
        else:
            with self.fake:
                yield

    def _call(self, func: Any, args: tuple, kwargs: dict) -> Any:
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        own = [self.is_own(tensor) for tensor in tensors]
        if tensors and not any(own) and self._may_run(func, tensors):
            result = func(*args, **kwargs)
            self.ignore(tree_leaves(result))  # what takes its place counts
            if func is torch.ops.aten.lift_fresh.default:
                self._numbers.add(result.untyped_storage()._cdata)
            return result
        if not all(own):
            args, kwargs = tree_map_only(torch.Tensor, self.counted, (args, kwargs))
        if "device" in kwargs or (not tensors and any(a.name == "device" for a in func._schema.arguments)):
            kwargs = {**kwargs, "device": self.device}
        if self.fake is None:
            return func(*args, **kwargs)
        with self.fake:
            return func(*args, **kwargs)

    def _may_run(self, func: Any, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether an operation on real tensors may run: these have data, and none of the model's is written to."""
        if any(isinstance(t, self.kind) or t.is_meta or hasattr(t, "__tensor_flatten__") for t in tensors):
            return False
        return not func._schema.is_mutable or all(t.untyped_storage()._cdata in self._numbers for t in tensors)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


class _Functions(TorchFunctionMode):
    """Attention by a fused kernel: torch takes the plain formula, which keeps all scores, for tensors without data.

    Also sees whether autocast is on, which an operation cannot.
    """

    def __init__(self, exact: bool) -> None:
        super().__init__()
        self.exact = exact

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not self.exact and any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
            raise NeedsDevice("the model computes under autocast")
        if func is F.scaled_dot_product_attention and args and args[0].is_meta and not self.exact:
            return _fused(*args, **kwargs)
        return func(*args, **kwargs)


def _fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """scaled_dot_product_attention [n, heads, tokens, width] for tensors of the meta device."""
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
    if query.ndim != 4:
        raise NeedsDevice(f"attention on tensors of {query.ndim} dimensions")
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = attn_mask.to(query.dtype)
    return _ATTENTION(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
