"""Tests ready prompt lists and own text: their split into training and held-out prompts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.presets import PRESETS, prompt_set
from dreambooth_dpo.dpo_core.prompts import fill

OWN = "own text"
every_preset = pytest.mark.parametrize("preset", PRESETS)
# Any word that is no placeholder: identifiers are invented, class nouns come in every language.
words = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="{}"), min_size=1, max_size=12).filter(
    str.strip
)
BACKGROUND = "a photo of a {identifier} {class_noun} in the "


def concept(identifier: str = "sks", class_noun: str = "dog") -> Concept:
    return Concept(identifier, class_noun, np.zeros((1, 8, 8, 3), np.uint8))


def made(preset: str = OWN, text: str = "", held_out_text: str = "", share: float = 0.4, seed: int = 0):
    return prompt_set(concept(), preset, text, held_out_text, share, seed)


# --- the lists ---


@every_preset
def test_preset_has_25_distinct_prompts(preset):
    templates = [template for _, template in PRESETS[preset]]
    assert len(templates) == 25
    assert len({fill(t, concept()).lower() for t in templates}) == 25


@every_preset
def test_every_context_has_prompts_for_both_halves(preset):
    counts = Counter(context for context, _ in PRESETS[preset])
    assert min(counts.values()) >= 3 and len(counts) >= 4


@every_preset
def test_prompts_are_plain_lines(preset):
    for context, template in PRESETS[preset]:
        assert template == " ".join(template.split()) and template.count("{identifier} {class_noun}") == 1
        assert context and not template.startswith(("#", "["))


@every_preset
@settings(deadline=None)
@given(identifier=words, class_noun=words)
def test_every_prompt_takes_any_concept(preset, identifier, class_noun):
    # An identifier that is a word of the class noun is refused.
    assume(identifier.casefold().strip() not in class_noun.casefold())
    subject = concept(identifier, class_noun)
    filled = [fill(template, subject) for _, template in PRESETS[preset]]
    assert all(subject.subject in prompt and "{" not in prompt for prompt in filled)
    assert len(set(filled)) == 25


@every_preset
@settings(deadline=None, max_examples=50)
@given(share=st.floats(0.1, 0.8), seed=st.integers(0, 2**31 - 1))
def test_every_context_stands_in_both_halves(preset, share, seed):
    found = made(preset, share=share, seed=seed)
    context_of = {fill(template, concept()): context for context, template in PRESETS[preset]}
    contexts = set(context_of.values())
    assert sorted([*found.train, *found.held_out]) == sorted(context_of)
    assert {context_of[p] for p in found.train} == {context_of[p] for p in found.held_out} == contexts
    assert found.unseen == ()
    # Each context has at least one prompt in both halves, so the share is met to within one prompt per context.
    assert abs(len(found.held_out) - share * 25) <= len(contexts)


@every_preset
def test_the_seed_decides_which_are_held_out(preset):
    assert made(preset) == made(preset)
    assert len({made(preset, seed=seed).held_out for seed in range(10)}) > 5


@every_preset
def test_own_text_is_ignored_when_a_preset_is_chosen(preset):
    assert made(preset, text="no concept here {nonsense}") == made(preset)


# --- own text ---


def test_own_text_is_split_by_its_contexts():
    lines = [f"[place] {BACKGROUND}{x}" for x in ("snow", "jungle", "desert")] + [
        f"[way] {BACKGROUND}{x} way" for x in ("red", "blue")
    ]
    found = made(text="\n".join(["# places first", *lines, "", "   "]), share=0.5)
    assert len(found.train) + len(found.held_out) == 5
    for part in (found.train, found.held_out):
        assert any("way" in p for p in part) and any("way" not in p for p in part)
    assert all(p.startswith("a photo of a sks dog in the ") for p in (*found.train, *found.held_out))


def test_own_text_without_contexts_is_split_by_line():
    found = made(text="\n".join(BACKGROUND + x for x in "abcdefghij"))
    assert (len(found.train), len(found.held_out)) == (6, 4)
    assert set(found.unseen) == set(found.held_out)


def test_own_text_may_have_any_line_endings():
    lines = [BACKGROUND + x for x in "abcd"]
    assert (
        made(text="\r\n".join(lines))
        == made(text="\n".join(lines))
        == made(text="\n\n".join(f"  {x}\t" for x in lines))
    )


@pytest.mark.parametrize("preset", [*PRESETS, OWN])
def test_held_out_text_replaces_the_split(preset):
    text = "\n".join(BACKGROUND + x for x in ("snow", "sea", "snow"))
    found = made(
        preset,
        text,
        f"# only measured\n[tag] {BACKGROUND}night\n{BACKGROUND}night\n{BACKGROUND}rain",
        share=0.8,
        seed=3,
    )
    assert found.held_out == ("a photo of a sks dog in the night", "a photo of a sks dog in the rain")
    every = [fill(template, concept()) for _, template in PRESETS.get(preset, [])]
    assert found.train == tuple(every or ["a photo of a sks dog in the snow", "a photo of a sks dog in the sea"])


def test_blank_held_out_text_is_ignored():
    assert made("objects", held_out_text=" \n\t\n") == made("objects")


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        (
            {"text": ""},
            "the text of the prompt set holds no prompt. Write one per line, such as 'a photo of a {identifier} "
            "{class_noun}",
        ),
        ({"text": "# nothing\n\n"}, "the text of the prompt set holds no prompt"),
        ({"text": BACKGROUND + "snow", "held_out_text": "# nothing"}, "the held-out text holds no prompt"),
        ({"text": "a dog in the snow"}, "'a dog in the snow' does not name the concept"),
        (
            {"text": "a {subject} in the snow"},
            "has the unknown placeholder {subject}; use {identifier} and {class_noun}",
        ),
        ({"text": BACKGROUND + "snow", "held_out_text": "a dog"}, "'a dog' does not name the concept"),
        (
            {"text": BACKGROUND + "snow", "held_out_text": BACKGROUND + "snow"},
            "is both a training and a held-out prompt",
        ),
        ({"text": BACKGROUND + "snow"}, "no held_out prompt. Write at least five prompts"),
        ({"preset": "cars"}, "preset 'cars' does not exist; choose one of objects, living things, people, own text"),
        ({"preset": ""}, "preset '' does not exist"),
    ],
)
def test_wrong_text_is_refused_with_the_remedy(given_, said):
    with pytest.raises(UserError) as refused:
        made(**given_)
    assert said in str(refused.value)


def test_a_preset_prompt_that_is_held_out_too_is_refused():
    with pytest.raises(
        UserError, match="is both a training and a held-out prompt, so a gain on it would prove nothing"
    ):
        made("objects", held_out_text=PRESETS["objects"][0][1])
