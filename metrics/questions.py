"""Yes/no questions of a prompt, by rule: one on the whole, and one on each of its parts with a colour.

The question on the whole is that of VQAScore (arXiv 2404.01291). A part is a colour, or several, with what it colours:
an optional article, one or two colours joined by "and", a hyphen or a comma, up to two of MATERIALS, and one word that
is no word of CLOSED and no colour. "a photo of a red robot wearing a blue hat" has the parts "a red robot" and "a blue
hat". The rule reads English, and knows no grammar: "red" in "a robot that is red" names no part.
"""

from __future__ import annotations

import re

TEMPLATE = 'Does this figure show "{}"? Please answer yes or no.'
MOST_PARTS = 4
"""Most questions on parts, the first ones of the prompt."""
COLOURS = (
    "red orange yellow green blue purple violet pink brown black white grey gray cyan teal turquoise magenta beige "
    "golden gold silver crimson maroon navy"
).split()
MATERIALS = (
    "wooden wood metal metallic plastic leather glass cotton woollen woolen silk velvet knitted striped checkered "
    "shiny fluffy fuzzy big large small tiny little long short old new"
).split()
CLOSED = frozenset(
    "a an the and or of in on at by to with without for from near over under before behind beside between is are was "
    "were be it its that which who while as into against background light lighting tones hues colors colours".split()
)
"""Words that end a part: what they follow is no thing that a colour names."""
_COLOUR = rf"(?:{'|'.join(COLOURS)})"
_PART = re.compile(
    rf"\b(?:(?:a|an|the)\s+)?{_COLOUR}(?:(?:\s*-\s*|\s*,\s*|\s+and\s+|-and-|\s+){_COLOUR})*\s+"
    rf"(?:(?:{'|'.join(MATERIALS)})\s+){{0,2}}([^\W\d_]+(?:-[^\W\d_]+)*)",
    re.IGNORECASE,
)


def parts_of(prompt: str) -> tuple[str, ...]:
    """The parts of a prompt with a colour, as they stand in it, each once, at most MOST_PARTS, in their order."""
    found = (
        " ".join(match[0].split())
        for match in _PART.finditer(prompt)
        if match[1].lower() not in CLOSED and match[1].lower() not in (*COLOURS, *MATERIALS)
    )
    return tuple(dict.fromkeys(found))[:MOST_PARTS]


def questions_of(prompt: str, parts: bool = True) -> tuple[str, ...]:
    """The questions of a prompt, the one on the whole first; a part that is the whole prompt is not asked twice."""
    whole = " ".join(prompt.split())
    each = parts_of(whole) if parts else ()
    return tuple(TEMPLATE.format(text) for text in dict.fromkeys((whole, *each)))
