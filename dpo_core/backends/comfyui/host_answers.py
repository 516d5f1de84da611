"""Ask a vision-language model that ComfyUI has loaded as a CLIP: the logits of the first token of its answer.

Used through `host`. Such a CLIP is what the host's node TextGenerate takes. 0.3.64 has none; 0.33 has Qwen3-VL,
Qwen3.5, Gemma 3 and others, with `CLIP.generate` and pictures by `CLIP.tokenize(image=...)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ...errors import UserError
from .host_check import version

_NO_HEAD = ("Qwen25_7BVLI",)
"""Classes whose logits are not the model's: the host takes Qwen2.5-VL-7B's input embedding for its output layer (the
file's lm_head is left out), and generates without the positions of the picture (0.33).
"""
_REMEDY = "Load Qwen3-VL (4B or 8B, with its vision part) by the host's loader of text encoders"


def _language_model(clip: Any) -> Any:
    """The module that computes logits inside a CLIP. Raises UserError for a CLIP that is no such model."""
    stage = getattr(clip, "cond_stage_model", None)
    found = getattr(getattr(stage, str(getattr(stage, "clip", "")), None), "transformer", None)
    name = type(found if found is not None else stage).__name__
    if not hasattr(clip, "generate") or not callable(getattr(found, "logits", None)):
        raise UserError(
            f"the text encoder ({name}) on ComfyUI {version()} answers no questions: it only encodes prompts. "
            f"{_REMEDY}, on a ComfyUI that has the node Generate Text."
        )
    if {cls.__name__ for cls in type(found).__mro__} & set(_NO_HEAD):
        raise UserError(
            f"the text encoder is Qwen2.5-VL ({name}): ComfyUI {version()} loads it for prompts, without its output "
            f"layer, so its answers are not the model's own. {_REMEDY}."
        )
    return found


def answer_tokenizer(clip: Any) -> Any:
    """transformers' tokenizer of a CLIP that answers questions. Raises UserError as `first_answer` does."""
    _language_model(clip)
    section = getattr(clip.tokenizer, str(clip.tokenizer.clip))
    return section.tokenizer


def question_tokens(clip: Any, question: str, image: torch.Tensor) -> Mapping[str, Any]:
    """The host's tokens of a conversation: one picture [1, H, W, 3], 0..1, one question, then the answer.

    Raises UserError where no token is the picture.
    """
    tokens = clip.tokenize(question, image=image, skip_template=False, min_length=1, thinking=False)
    taken = [t[0] for rows in tokens.values() for row in rows for t in row if isinstance(t[0], dict)]
    if not any(each.get("type") == "image" for each in taken):
        raise UserError(
            f"the text encoder ({type(clip.cond_stage_model).__name__}) takes no picture with a question. {_REMEDY}."
        )
    return tokens


def first_answer(clip: Any, question: str, image: torch.Tensor) -> torch.Tensor:
    """Logits, float32 [vocabulary] on the CPU, of the first token of the answer to a question on a picture.

    image: [1, H, W, 3], 0..1. The host loads the model, makes the conversation and runs it, as in its node
    TextGenerate; its own logits are read as it computes them. Raises UserError for a CLIP that answers no questions,
    takes no picture, or whose logits the host computes wrongly.
    """
    model = _language_model(clip)
    tokens = question_tokens(clip, question, image)
    with _read_logits(model) as seen:
        clip.generate(tokens, do_sample=False, max_length=1, seed=0)
    if len(seen) != 1:
        raise UserError(
            f"ComfyUI {version()} computed {len(seen)} sets of logits for one token of an answer, and one is expected: "
            "this pack does not know this version. Use another judge."
        )
    return seen[0][0, -1].float().cpu()


@contextmanager
def _read_logits(model: Any) -> Iterator[list[torch.Tensor]]:
    """Inside, what the model's `logits` returns is put into the list too; the model's own method is back at the end."""
    seen: list[torch.Tensor] = []
    own = model.logits

    def logits(*given: Any, **named: Any) -> torch.Tensor:
        found = own(*given, **named)
        seen.append(found.detach())
        return found

    model.logits = logits
    try:
        yield seen
    finally:
        del model.logits  # the instance's; that of the class is seen again
