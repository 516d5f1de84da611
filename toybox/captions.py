"""The toybox's caption grammar, its closed vocabulary and its word-level tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .world import BACKGROUNDS, CLASSES, COLOURS, HAT_COLOURS, Scene

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTEXT_LENGTH = 24
BACKGROUND_PHRASES = {
    "grass": "on grass",
    "brick": "by a brick wall",
    "night": "at night",
    "snow": "in snow",
    "sand": "on sand",
    "water": "in water",
    "wood": "on wood",
    "stripes": "before stripes",
    "checker": "on a checker floor",
    "sunset": "at sunset",
}
IDENTIFIERS = ("sks", "zwx", "ohwx", "qtp", "vbn", "mxl", "jkr", "phf")
OPENINGS = ("", "a photo of", "a picture of", "an image of", "there is")


def hat_phrase(colour: str) -> str:
    return f"wearing a {colour} hat"


def _vocabulary() -> list[str]:
    """Every word of the grammar. <eos> is last, because CLIP pools at the highest token id."""
    text = " ".join((*BACKGROUND_PHRASES.values(), *OPENINGS, hat_phrase(""), "with a belly", "a an the and of"))
    words = sorted({*text.split(), *CLASSES, *COLOURS, *HAT_COLOURS, *BACKGROUNDS, *IDENTIFIERS})
    return ["<pad>", "<unk>", "<bos>", *words, "<eos>"]


VOCABULARY = _vocabulary()


def caption(
    scene: Scene,
    rng: np.random.Generator,
    colours: float = 0.6,
    background: float = 0.92,
    identifier: float = 0.15,
    hat: float = 1.0,
) -> str:
    """A caption of a scene, with parts left out at random.

    `colours`, `background`, `identifier` and `hat` are the probabilities (0..1) that the caption names the body and
    belly colours, the background, a (meaningless) identifier token and a hat. With `hat` at 1 a caption without a hat
    means a bare head.
    """
    words = [str(rng.choice(OPENINGS)), "a"]
    if rng.random() < identifier:
        words.append(str(rng.choice(IDENTIFIERS)))
    if rng.random() < colours:
        words.append(scene.body)
    words.append(scene.noun)
    if rng.random() < colours:
        words.append(f"with a {scene.belly} belly")
    if scene.hat and rng.random() < hat:
        words.append(hat_phrase(scene.hat))
    if rng.random() < background:
        words.append(BACKGROUND_PHRASES[scene.background])
    return " ".join(w for w in words if w)


def full_caption(scene: Scene) -> str:
    """The caption that names everything, in one fixed wording."""
    words = ["a", scene.body, scene.noun, f"with a {scene.belly} belly"]
    if scene.hat:
        words.append(hat_phrase(scene.hat))
    return " ".join([*words, BACKGROUND_PHRASES[scene.background]])


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the closed vocabulary; pipelines that ask for max_length pad to 24 tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(VOCABULARY)}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", ids["<bos>"]), ("<eos>", ids["<eos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=CONTEXT_LENGTH,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
    )
