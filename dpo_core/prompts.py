"""Prompt sets: templates with placeholders, split into training and held-out prompts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .concept import Concept
from .errors import UserError

_TAG = re.compile(r"^\[(?P<context>[^\]]+)\]\s*(?P<prompt>.+)$")


@dataclass(frozen=True)
class PromptSet:
    """Prompts as given to the model, with placeholders filled.

    `unseen`: held-out prompts whose context no training prompt names. Raises UserError when there is no training or no
    held-out prompt, or when a prompt is both.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    unseen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("train", "held_out"):
            if not getattr(self, name):
                raise UserError(
                    f"the prompt set has no {name} prompt. Write at least five prompts, one per line; twenty or more "
                    "are usual."
                )
        if both := sorted(set(self.train) & set(self.held_out)):
            raise UserError(
                f"prompt {both[0]!r} is both a training and a held-out prompt, so a gain on it would prove nothing. "
                "Remove it from one of the two."
            )


def fill(template: str, concept: Concept) -> str:
    """Put identifier and class noun into a template.

    Raises UserError when it does not name the concept, or has an unknown placeholder.
    """
    for name in re.findall(r"\{([^}]*)\}", template):
        if name not in ("identifier", "class_noun"):
            raise UserError(
                f"prompt {template!r} has the unknown placeholder {{{name}}}; use {{identifier}} and {{class_noun}}."
            )
    filled = template.replace("{identifier}", concept.identifier).replace("{class_noun}", concept.class_noun)
    filled = " ".join(filled.split())
    # The subject must start at a word boundary; it may continue, for example as a plural.
    if not re.search(rf"(?<!\w){re.escape(concept.subject)}", filled):
        raise UserError(
            f"prompt {template!r} does not name the concept. "
            f"Write '{{identifier}} {{class_noun}}' (here: {concept.subject!r}) where the subject stands."
        )
    return filled


def read_templates(path: Path) -> list[tuple[str, str]]:
    """(context, template) of each line of a UTF-8 text file.

    `[context] prompt` names a context; otherwise each line is a context of its own. Empty lines and lines that start
    with # are skipped. Raises UserError for a missing, unreadable or empty file.
    """
    try:
        # utf-8-sig: editors on Windows may write a byte order mark.
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"prompt file {path} does not exist. Write a text file with one prompt per line.") from error
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"prompt file {path} cannot be read: {error}. Save it as UTF-8 text.") from error
    return parse_templates(text, f"prompt file {path}")


def parse_templates(text: str, what: str) -> list[tuple[str, str]]:
    """(context, template) of each line, see `read_templates`; `what` names the text in error messages."""
    found = []
    for line in (x.strip() for x in text.splitlines()):
        if line and not line.startswith("#"):
            tagged = _TAG.match(line)
            found.append((tagged["context"].strip(), tagged["prompt"].strip()) if tagged else (line, line))
    if not found:
        raise UserError(
            f"{what} holds no prompt. Write one per line, such as 'a photo of a {{identifier}} {{class_noun}} on the "
            "beach'."
        )
    return found


def split(templates: list[tuple[str, str]], concept: Concept, held_out_share: float = 0.4, seed: int = 0) -> PromptSet:
    """Split so that every context with two or more prompts is in both parts.

    Contexts of a single prompt go to one part as a whole, training first; the held-out ones are listed as unseen. At
    least one prompt is held out where there are four or more.
    """
    rng = np.random.default_rng(seed)
    by_context: dict[str, list[str]] = {}
    for context, template in templates:
        prompts = by_context.setdefault(context, [])
        if (prompt := fill(template, concept)) not in prompts:
            prompts.append(prompt)
    train, held_out, single = [], [], []
    for prompts in by_context.values():
        if len(prompts) == 1:
            single += prompts
            continue
        order = [prompts[i] for i in rng.permutation(len(prompts))]
        count = min(len(order) - 1, max(1, round(held_out_share * len(order))))
        held_out += order[:count]
        train += order[count:]
    order = [single[i] for i in rng.permutation(len(single))]
    share = int(held_out_share * len(order))
    if not (share or held_out) and len(order) >= 4:
        share = 1
    unseen = order[:share]
    return PromptSet(tuple([*train, *order[len(unseen) :]]), tuple([*held_out, *unseen]), tuple(unseen))
