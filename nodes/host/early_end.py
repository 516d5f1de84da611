"""Inner nodes of DPO Rounds end early, without a result, where the user asked to stop the loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any


def ending_early(execute: Callable) -> Callable:
    """An `execute` that gives nothing (None) for each output once its loop is to end.

    Keep Best Round asks for nothing of such a round. The outputs reach no later run: a request to stop changes the
    fingerprint of the run's nodes (runs.renew).
    """

    @wraps(execute)
    def stage(cls: Any, *given: Any, **named: Any) -> Any:
        from comfy_api.latest import io

        from .rounds_run import StopAsked, inner_of

        inner = inner_of(getattr(cls.hidden, "unique_id", None))
        nothing = io.NodeOutput(*[None] * len(cls.define_schema().outputs))
        try:
            return nothing if inner and inner.ends else execute(cls, *given, **named)
        except StopAsked:
            return nothing

    stage.__signature__ = signature(execute)  # type: ignore[attr-defined]  # ComfyUI reads the names from it
    del stage.__wrapped__  # values.checked takes it for its own mark
    return stage
