from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.prompts import fill
from dreambooth_dpo.toybox.captions import BACKGROUND_PHRASES
from dreambooth_dpo.toybox.concepts import _appearances, concept_from_seed
from dreambooth_dpo.toybox.oracle import Oracle
from dreambooth_dpo.toybox.prompts import prompt_templates, template, train_and_held_out
from dreambooth_dpo.toybox.world import BACKGROUNDS, CLASSES, COLOURS, HAT_COLOURS, INK, Scene

FIRST = [concept_from_seed(n) for n in range(15)]


def test_the_first_concepts_differ_and_cover_the_world():
    assert len({(c.noun, c.body, c.belly) for c in FIRST}) == 15
    assert {c.noun for c in FIRST} == set(CLASSES)
    assert {c.body for c in FIRST} == {c.belly for c in FIRST} == set(COLOURS)
    assert {c.background for c in FIRST[:10]} == set(BACKGROUNDS)
    assert all(c.body != c.belly for c in FIRST)


def test_appearances_repeat_after_ninety_concepts_with_other_photos():
    assert len(set(_appearances())) == len(_appearances()) == 90
    again = concept_from_seed(93)
    assert (again.noun, again.body, again.belly) == (FIRST[3].noun, FIRST[3].body, FIRST[3].belly)
    assert not np.array_equal(again.references, FIRST[3].references)


def test_photos_show_the_concept_bare_headed_on_the_stated_backgrounds():
    oracle = Oracle()
    for concept in FIRST[:4]:
        assert concept.references.shape == concept.held_out.shape == (5, 64, 64, 3)
        assert concept.references.dtype == concept.held_out.dtype == np.uint8
        assert oracle.judge(
            concept.references, [concept.scene_for(BACKGROUND_PHRASES[concept.background])] * 5
        ).all_right.all()
        readings = oracle.read(concept.held_out, [concept.noun] * 5)
        assert {(r.body, r.belly, r.hat) for r in readings} == {(concept.body, concept.belly, None)}
        elsewhere = {r.background for r in readings}
        assert len(elsewhere) == 5 and elsewhere <= set(BACKGROUNDS) - {concept.background}


@pytest.mark.parametrize("toy", FIRST, ids=lambda toy: toy.noun)
def test_masks_cover_exactly_the_subject_of_each_reference(toy):
    """Inside there are three colours: ink, and body and belly up to one shade. Outside none of them occurs."""
    assert toy.masks.shape == toy.references.shape[:3] and toy.masks.dtype == np.uint8
    for photo, mask in zip(toy.references, toy.masks, strict=True):
        inside, outside = ({tuple(map(int, pixel)) for pixel in photo[mask == value]} for value in (255, 0))
        assert len(inside) == 3 and INK in inside and not inside & outside
        for colour in (COLOURS[toy.body], COLOURS[toy.belly]):
            cosines = [np.dot(c, colour) / np.linalg.norm(c) / np.linalg.norm(colour) for c in inside - {INK}]
            assert max(cosines) > 0.999
        assert (mask == 255).sum() + (mask == 0).sum() == mask.size


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_concept_is_determined_by_its_number(n):
    first, second = concept_from_seed(n), concept_from_seed(n)
    assert first.describe() == second.describe()
    assert np.array_equal(first.references, second.references) and np.array_equal(first.held_out, second.held_out)
    assert np.array_equal(first.masks, second.masks)
    assert len({photo.tobytes() for photo in (*first.references, *first.held_out)}) == 10


def test_negative_numbers_are_refused():
    with pytest.raises(UserError, match="-1"):
        concept_from_seed(-1)


def test_to_concept_and_describe():
    toy = FIRST[1]
    concept = toy.to_concept()
    assert (concept.identifier, concept.class_noun) == (toy.identifier, toy.noun)
    assert concept.references is toy.references and concept.held_out is toy.held_out and concept.masks is toy.masks
    assert all(word in toy.describe() for word in (toy.identifier, toy.noun, toy.body, toy.belly, toy.background))


@given(st.sampled_from(FIRST), st.sampled_from(BACKGROUNDS), st.sampled_from((None, *HAT_COLOURS)))
@settings(max_examples=60, deadline=None)
def test_scene_for_parses_filled_templates(toy, background, hat):
    prompt = fill(template(background, hat), toy.to_concept())
    assert toy.scene_for(prompt) == Scene(toy.noun, toy.body, toy.belly, background, hat)


def test_scene_for_parses_every_prompt_of_the_grammar():
    toy = FIRST[0]
    scenes = [toy.scene_for(fill(t, toy.to_concept())) for t in prompt_templates()]
    assert len(set(scenes)) == len(BACKGROUNDS) * (1 + len(HAT_COLOURS))


@pytest.mark.parametrize(
    "prompt, why",
    [
        ("a photo of a sks robot", "names no toybox background;"),
        ("a sks robot in snowdrift", "names no toybox background;"),
        ("a sks robot in snow at night", "names 2 toybox backgrounds"),
        ("a sks robot wearing a beige hat in snow", "beige hat"),
        ("", "names no toybox background;"),
    ],
)
def test_scene_for_refuses_unknown_or_ambiguous_prompts(prompt, why):
    with pytest.raises(UserError, match=why):
        FIRST[0].scene_for(prompt)


def test_prompt_templates_are_complete_and_distinct():
    templates = prompt_templates()
    assert len(set(templates)) == len(templates)
    for background in BACKGROUNDS:
        for hat in (None, *HAT_COLOURS):
            assert template(background, hat) in templates
    assert template("snow", "red") == "a photo of a {identifier} {class_noun} wearing a red hat in snow"


@pytest.mark.parametrize("n", range(15))
def test_both_halves_cover_every_background_and_hat_and_share_no_scene(n):
    toy = FIRST[n]
    halves = train_and_held_out(toy)
    assert halves == train_and_held_out(toy)
    assert [len(h) for h in halves] == [len(set(h)) for h in halves] == [30, 20]
    scenes = [[toy.scene_for(fill(t, toy.to_concept())) for t in half] for half in halves]
    assert not set(scenes[0]) & set(scenes[1])
    for half in scenes:
        assert {s.background for s in half} == set(BACKGROUNDS)
        assert {s.hat for s in half} == {None, *HAT_COLOURS} - {toy.body}
        assert sum(s.hat is None for s in half) == 0.4 * len(half)
