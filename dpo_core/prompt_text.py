"""Checks prompts against what the text encoder makes of them: other tools' syntax, repeats, and its token limit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .concept import Concept
from .errors import UserError

_NETWORK = re.compile(r"<(?:lora|lyco|lycoris|hypernet|embedding)\s*:[^<>]*>|\bembedding:[^\s,]+", re.IGNORECASE)
_WEIGHT = re.compile(r"\([^():]*[^():\d\s]\s*:\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*\)")
_SCHEDULE = re.compile(r"\[[^\[\]:|]*:[^\[\]:|]*:?\s*(?:\d+\.?\d*|\.\d+)\s*\]|\[[^\[\]|]+\|[^\[\]]+\]")
_LOUDER = re.compile(r"\(\([^()]+\)\)|\[\[[^\[\]]+\]\]")
_WORDS = re.compile(r"\b(?:BREAK|AND|ADDCOMM|ADDROW)\b|\B--\w+ \S+")
_SYNTAX = (
    (_NETWORK, "names a network; name the LoRA in the config (model.lora), an embedding by its token"),
    (_WEIGHT, "is a weight; write the words without brackets and number"),
    (_SCHEDULE, "is a schedule; write one of its parts"),
)
_EMPHASIS = ((_LOUDER, "brackets"), (_WORDS, "a command of another tool"))


def plain_text(lists: Sequence[Sequence[str]], concept: Concept) -> list[str]:
    """Check filled prompts, headless, where a prompt is plain text: sentences on what is read as text or dropped.

    Raises UserError, naming the prompt, for what another tool would act on: `(word:1.3)`, `<lora:name:1>`,
    `[from:to:0.5]`.
    """
    said = []
    for prompts in lists:
        repeated = sorted({p for p in prompts if prompts.count(p) > 1})
        said += [f"prompt {p!r} is given {prompts.count(p)} times and counts once" for p in repeated]
    for prompt in dict.fromkeys(p for prompts in lists for p in prompts):
        # An identifier may be of any characters, such as <sks>.
        text = prompt.replace(concept.identifier, "")
        for pattern, remedy in _SYNTAX:
            if found := pattern.search(text):
                raise UserError(
                    f"prompt {prompt!r}: {found[0]!r} {remedy}. Prompts are plain text here, so the text encoder would "
                    "read the signs as words."
                )
        for pattern, name in _EMPHASIS:
            if found := pattern.search(text):
                said.append(f"prompt {prompt!r}: {found[0]!r} ({name}) has no effect; it is read as text")
    return said


def vectors(prompt: str, tokenizer: Any) -> str:
    """The prompt with each embedding of several vectors written as all of its tokens: "<sks>" -> "<sks> <sks>_1".

    As `maybe_convert_prompt` of diffusers (loaders/textual_inversion.py): without it, the first vector alone acts.
    What is written out already stays. tokenizer: a transformers tokenizer; one without added tokens changes nothing.
    """
    added = getattr(tokenizer, "added_tokens_encoder", None) or {}
    for token in sorted((t for t in added if f"{t}_1" in added), key=len, reverse=True):
        whole = [token]
        while f"{token}_{len(whole)}" in added:
            whole.append(f"{token}_{len(whole)}")
        written_out = rf"(?! {re.escape(whole[1])})"
        prompt = re.sub(rf"{re.escape(token)}(?!_\d|\w){written_out}", lambda _, w=whole: " ".join(w), prompt)
    return prompt


def first_vector_only(prompts: Sequence[str], tokenizers: Sequence[Any]) -> None:
    """Raises UserError, naming the prompt, where an embedding of several vectors would act by its first vector."""
    for prompt in prompts:
        for tokenizer in tokenizers:
            if (whole := vectors(prompt, tokenizer)) != prompt:
                raise UserError(
                    f"prompt {prompt!r} names a textual inversion of several vectors, of which the first alone would "
                    f"act. Write all of its tokens: {whole!r}."
                )


def same_conditioning(prompts: Sequence[str], tokenizers: Sequence[Any]) -> list[str]:
    """Check prompts against the tokenizers of a model: a sentence for each prompt that is cut, with the words lost.

    tokenizers: callables that give `.input_ids` of a text, with `model_max_length` and `decode`, as of transformers; of
    several, a prompt counts by all of them together. Raises UserError when two prompts become the same tokens, so that
    the model cannot tell them apart.
    """
    seen: dict[tuple, str] = {}
    said = []
    for prompt in dict.fromkeys(prompts):
        read = [_read(prompt, tokenizer) for tokenizer in tokenizers]
        lost = [rest for _, rest in read]
        tokens = tuple(kept for kept, _ in read)
        other = seen.setdefault(tokens, prompt)
        if tokens and other != prompt:
            limit = max(t.model_max_length for t in tokenizers)
            why = (
                f"both are cut after {limit} tokens, which is all that the text encoder reads: shorten them"
                if any(lost)
                else "they differ in capitals, spaces or unknown words alone: take one of them out"
            )
            raise UserError(f"prompts {other!r} and {prompt!r} are one prompt to the model; {why}.")
        if lost and all(lost):
            # The encoder that reads most decides what is lost.
            least, tokenizer = min(zip(lost, tokenizers, strict=True), key=lambda pair: len(pair[0]))
            said.append(
                f"prompt {prompt!r} is longer than the text encoder's {tokenizer.model_max_length} tokens: "
                f"{tokenizer.decode(list(least)).strip()!r} is cut off"
            )
    return said


def check_encoded(prompts: Sequence[str], pipe: Any) -> list[str]:
    """All checks of filled prompts that need the tokenizers of a diffusers pipeline; see the functions above."""
    names = ("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4")
    found = [t for t in (getattr(pipe, name, None) for name in names) if t is not None]
    tokenizers = [getattr(t, "tokenizer", t) for t in found]  # a processor of pictures and texts has one
    first_vector_only(prompts, tokenizers)
    return same_conditioning(prompts, tokenizers)


def _read(prompt: str, tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(tokens that the encoder gets, tokens that are cut off), the last token being the end mark."""
    tokens, limit = tuple(tokenizer(vectors(prompt, tokenizer)).input_ids), tokenizer.model_max_length
    if len(tokens) <= limit:
        return tokens, ()
    return (*tokens[: limit - 1], tokens[-1]), tokens[limit - 1 : -1]
