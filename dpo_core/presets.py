"""Ready prompt lists of 25, in the manner of DreamBench (arXiv 2208.12242): places, company, clothes, changes."""

from __future__ import annotations

from .concept import Concept
from .errors import UserError
from .prompts import PromptSet, fill, parse_templates, split

_S = "{identifier} {class_noun}"

_PLACES = (
    "in the jungle",
    "in the snow",
    "on a sandy beach",
    "on a cobblestone street",
    "on a wooden floor",
    "on top of green grass",
    "floating on calm water",
)
_BACKDROPS = (
    "with a city skyline behind it",
    "with a snowy mountain behind it",
    "with a blue house behind it",
    "with autumn leaves around it",
    "in front of a wheat field",
    "in front of a brick wall",
)


def _tagged(context: str, lines: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(context, line) for line in lines]


_SHARED = [
    *_tagged("place", tuple(f"a photo of a {_S} {place}" for place in _PLACES)),
    *_tagged("backdrop", tuple(f"a photo of a {_S} {backdrop}" for backdrop in _BACKDROPS)),
]
_OBJECT = [
    *_tagged(
        "on something",
        tuple(f"a {_S} on top of {x}" for x in ("pink fabric", "a mirror", "a purple rug", "a white table")),
    ),
    *_tagged(
        "light", tuple(f"a {_S} {x}" for x in ("at night under a street lamp", "at sunset", "in bright studio light"))
    ),
    *_tagged("changed", tuple(f"a {x} {_S}" for x in ("red", "purple", "shiny", "wet", "cube shaped"))),
]
_LIVING = [
    *_tagged(
        "wearing",
        tuple(f"a {_S} wearing {x}" for x in ("a red hat", "a santa hat", "a scarf", "a black top hat", "glasses")),
    ),
    *_tagged("dressed", tuple(f"a {_S} dressed as {x}" for x in ("a police officer", "a chef", "a wizard"))),
    *_tagged(
        "doing", tuple(f"a photo of a {_S} {x}" for x in ("sleeping", "running", "swimming", "looking out of a window"))
    ),
]
_PERSON = [
    *_tagged(
        "wearing",
        tuple(f"a photo of a {_S} wearing {x}" for x in ("a red coat", "a suit", "sunglasses", "a straw hat")),
    ),
    *_tagged(
        "doing",
        tuple(
            f"a photo of a {_S} {x}" for x in ("reading a book", "riding a bicycle", "cooking", "playing the guitar")
        ),
    ),
    *_tagged(
        "as",
        tuple(f"a portrait of a {_S} as {x}" for x in ("an astronaut", "a chef", "a medieval knight", "a painter")),
    ),
]
PRESETS = {"objects": [*_SHARED, *_OBJECT], "living things": [*_SHARED, *_LIVING], "people": [*_SHARED, *_PERSON]}
"""(context, template) lists by name."""


def prompt_set(
    concept: Concept, preset: str, text: str, held_out_text: str, held_out_share: float, seed: int
) -> PromptSet:
    """Split a preset, or the user's own text ("own text"), into training and held-out prompts.

    With `held_out_text` nothing is split. Raises UserError for an unknown preset, or an empty or invalid prompt.
    """
    if preset in PRESETS:
        templates = PRESETS[preset]
    elif preset == "own text":
        templates = parse_templates(text, "the text of the prompt set")
    else:
        raise UserError(f"preset {preset!r} does not exist; choose one of {', '.join([*PRESETS, 'own text'])}.")
    if not held_out_text.strip():
        return split(templates, concept, held_out_share, seed)
    held_out = parse_templates(held_out_text, "the held-out text")
    return PromptSet(*(tuple(dict.fromkeys(fill(t, concept) for _, t in part)) for part in (templates, held_out)))
