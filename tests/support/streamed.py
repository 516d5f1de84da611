"""A simulation of memory systems that stream weights to a GPU layer by layer, through one buffer.

ComfyUI does so with models larger than the card (low VRAM), and by default under dynamic VRAM. Simulated:
- a weight lies in a scratch buffer that the next layer's weight overwrites, unnoticed by PyTorch;
- loading is always partial, whatever is requested;
- a dynamic MODEL makes a plain copy by `clone(disable_dynamic=True)` if its loader can be called again, as in ComfyUI
0.33.
Not simulated: evicted pages, streams, pinned memory, devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def _views(like: list[torch.Tensor | None], memory: bytearray) -> list[torch.Tensor | None]:
    """Tensors of these shapes in `memory`, one after the other, that do not share version counters."""
    found, start = [], 0
    for tensor in like:
        if tensor is None:
            found.append(None)
            continue
        flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=start)
        found.append(flat.view(tensor.shape))
        start += tensor.nbytes
    return found


@contextmanager
def scratch_buffer(size: int = 2**24) -> Iterator[list[str]]:
    """A context in which layers marked as streamed compute with weights in one buffer.

    Yields the names of the classes that did.
    """
    import comfy.ops

    memory, used, plain = bytearray(size), [], comfy.ops.cast_bias_weight

    def cast(s: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not getattr(s, "streamed", False):
            return plain(s, *args, **kwargs)
        used.append(type(s).__name__)
        own = {name: s._parameters[name] for name in ("weight", "bias") if name in s._parameters}
        try:
            with torch.no_grad():
                for (name, weight), view in zip(own.items(), _views(list(own.values()), memory), strict=True):
                    if weight is not None:
                        view.copy_(weight)
                        s._parameters[name] = nn.Parameter(view, requires_grad=False)
            return plain(s, *args, **kwargs)
        finally:
            s._parameters.update(own)

    comfy.ops.cast_bias_weight = cast
    try:
        yield used
    finally:
        comfy.ops.cast_bias_weight = plain


def streamed(patcher: Any, dynamic: bool, again: Callable[[], Any] | None = None) -> Any:
    """The MODEL under a simulated memory system: dynamic VRAM, or low VRAM (`dynamic` False).

    again: builds an equal plain MODEL; None: a loader that cannot be called again.
    """
    from comfy.model_patcher import ModelPatcher

    class Streamed(ModelPatcher):
        def is_dynamic(self) -> bool:
            return dynamic

        def load(self, *args: Any, **kwargs: Any) -> None:
            super().load(*args, **kwargs)
            for module in self.model.modules():
                if hasattr(module, "comfy_cast_weights") and not hasattr(module, "streamed"):
                    module.streamed, module.before_streamed = True, module.comfy_cast_weights
                    module.comfy_cast_weights = True
                    if not dynamic:
                        module.prev_comfy_cast_weights = module.before_streamed  # how ComfyUI marks them

        def unpatch_model(self, *args: Any, **kwargs: Any) -> None:
            for module in self.model.modules():
                if hasattr(module, "streamed"):
                    module.comfy_cast_weights = module.before_streamed
                    del module.streamed, module.before_streamed
                    if hasattr(module, "prev_comfy_cast_weights"):
                        del module.prev_comfy_cast_weights
            super().unpatch_model(*args, **kwargs)

        def clone(self, disable_dynamic: bool = False, **kwargs: Any) -> Any:
            if not (dynamic and disable_dynamic):
                return super().clone(**kwargs)
            assert again is not None, "asked for a plain copy that the loader cannot give"
            plain, copy = again(), super().clone(**kwargs)
            plain.patches, plain.patches_uuid = copy.patches, copy.patches_uuid
            plain.object_patches, plain.model_options, plain.parent = copy.object_patches, copy.model_options, self
            return plain

    found = Streamed(patcher.model, patcher.load_device, patcher.offload_device)
    found.cached_patcher_init = None if again is None else (again, ())
    return found
