"""Parts of a pipeline's call: embeddings of prompts, the pipeline without text encoders, its step callback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


def sizes(embeds: Mapping[str, Any]) -> tuple:
    """Sizes of one prompt's embeddings: prompts with equal ones can be drawn in one call."""
    tensors = {name: value[0] if isinstance(value, list) else value for name, value in embeds.items()}
    return tuple((name, None if value is None else tuple(value.shape)) for name, value in sorted(tensors.items()))


def joined_embeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The call's arguments for several pictures, of one prompt's embeddings each; lists stay lists, and None stays."""
    made: dict[str, Any] = {}
    for name, value in rows[0].items():
        values = [row[name] for row in rows]
        if isinstance(value, list):
            made[name] = [one for part in values for one in part]
        else:
            made[name] = None if value is None else torch.cat(values)
    return made


def without_text_encoders(pipe: Any) -> Any:
    """A pipeline of the same class and parts that draws from embeddings, so that text encoders can be elsewhere.

    A pipeline runs on the device of the first of its parts.
    """
    parts = {n: None if n.startswith(("text_encoder", "image_encoder")) else p for n, p in pipe.components.items()}
    _, settings = pipe._get_signature_keys(type(pipe))
    made = type(pipe)(**parts, **{name: pipe.config[name] for name in settings if name in pipe.config})
    made.set_progress_bar_config(disable=True)
    return made


def step_callback(on_step: Callable[[int], None] | None, part: int, parts: int) -> Callable[[int, int], None]:
    """Of one of several calls, with (step, steps): `on_step` gets 1..steps over all of them."""

    def tell(step: int, steps: int) -> None:
        if on_step:
            on_step(-(-(part * steps + step) // parts))

    return tell
