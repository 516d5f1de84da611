"""The denoiser's inputs for one prompt, recorded from its pipeline's own call, and their batches."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_COPIES = 2
"""Pictures of a recorded call: what has so many entries belongs to a picture, everything else to the whole call."""


@dataclass(frozen=True, eq=False)
class Row:
    """A picture's own input: a tensor [1, ...], or a list of one entry."""

    value: Any


Inputs = dict[str, Any]
"""The denoiser's arguments by name: `Row`s, dictionaries that hold some, and values that hold for all pictures."""


class _Recorded(Exception):
    """Ends a pipeline's call when the denoiser's inputs are known."""


@dataclass(frozen=True, eq=False)
class Call:
    """A recorded call: the denoiser's arguments by name, and what the pipeline gave to its scheduler, if it got there.

    `prediction`: [2, ...]; None when the call ended before the denoiser ran.
    """

    arguments: dict[str, Any]
    prediction: torch.Tensor | None


def record(pipe: Any, denoiser: torch.nn.Module, call: Callable[[], object], whole: bool) -> Call:
    """Record the first call of the denoiser inside `call()`, which draws two pictures with one prompt.

    whole: whether the denoiser runs, for `prediction`; else the call ends before it.
    """
    heard: dict[str, Any] = {}

    def before(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        heard.setdefault("arguments", dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments))
        if not whole:
            raise _Recorded

    def step(prediction: torch.Tensor, *_: Any, **__: Any) -> None:
        heard["prediction"] = prediction
        raise _Recorded

    hook = denoiser.register_forward_pre_hook(before, with_kwargs=True)
    pipe.scheduler.step = step
    try:
        call()
    except _Recorded:
        pass  # the end of the recording, see above
    finally:
        hook.remove()
        del pipe.scheduler.step
    if "arguments" not in heard:
        raise RuntimeError(f"{type(pipe).__name__} did not call its {type(denoiser).__name__}")
    return Call(heard["arguments"], heard.get("prediction"))


def inputs_of(call: Call, without: Sequence[str]) -> Inputs:
    """The inputs of one picture of a recorded call, without latents and time."""
    return {name: _first(value) for name, value in call.arguments.items() if name not in without}


def _first(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Row(value[:1].clone()) if value.ndim and len(value) == _COPIES else value
    if isinstance(value, dict):
        return {name: _first(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)) and len(value) == _COPIES:
        return Row([value[0].clone() if isinstance(value[0], torch.Tensor) else value[0]])
    return value


def key(value: Any) -> Any:
    """Hashable: inputs with equal keys may share a forward. Sizes of a picture's own, contents of the rest."""
    if isinstance(value, Row):
        entries = value.value if isinstance(value.value, list) else [value.value]
        return tuple(tuple(e.shape) if isinstance(e, torch.Tensor) else repr(e) for e in entries)
    if isinstance(value, dict):
        return tuple((name, key(part)) for name, part in sorted(value.items()))
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), hashlib.sha256(value.float().cpu().numpy().tobytes()).hexdigest()
    return repr(value)


def joined(rows: Sequence[Any]) -> Any:
    """The inputs of several pictures with equal keys, for one forward."""
    first = rows[0]
    if isinstance(first, Row):
        if isinstance(first.value, list):
            return [entry for row in rows for entry in row.value]
        return torch.cat([row.value for row in rows])
    if isinstance(first, dict):
        return {name: joined([row[name] for row in rows]) for name in first}
    return first


def groups(keys: Sequence[Any]) -> list[list[int]]:
    """Places of equal keys, in the order of their first."""
    found: dict[Any, list[int]] = {}
    for place, name in enumerate(keys):
        found.setdefault(name, []).append(place)
    return list(found.values())
