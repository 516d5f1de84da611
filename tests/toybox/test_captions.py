from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth_dpo.toybox.captions import (
    BACKGROUND_PHRASES,
    CONTEXT_LENGTH,
    IDENTIFIERS,
    VOCABULARY,
    build_tokenizer,
    caption,
    full_caption,
    hat_phrase,
)
from dreambooth_dpo.toybox.concepts import concept_from_seed
from dreambooth_dpo.toybox.prompts import prompt_templates
from dreambooth_dpo.toybox.world import BACKGROUNDS, Scene, random_scene

SEEDS = st.integers(0, 2**31 - 1)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_every_word_of_a_caption_is_in_the_vocabulary(seed):
    rng = np.random.default_rng(seed)
    words = caption(random_scene(rng), rng).split()
    assert set(words) <= set(VOCABULARY)
    assert len(words) <= CONTEXT_LENGTH - 2


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_caption_always_names_the_hat_and_never_another_background(seed):
    rng = np.random.default_rng(seed)
    scene = random_scene(rng)
    text = caption(scene, rng)
    assert ("hat" in text) == (scene.hat is not None)
    assert scene.hat is None or hat_phrase(scene.hat) in text
    assert not any(phrase in text for name, phrase in BACKGROUND_PHRASES.items() if name != scene.background)


def test_probabilities_of_one_and_zero():
    scene, rng = Scene("robot", "red", "blue", "snow", "pink"), np.random.default_rng(0)
    everything = caption(scene, rng, colours=1, background=1, identifier=1).split()
    assert " ".join(w for w in everything if w not in IDENTIFIERS).endswith(
        "a red robot with a blue belly wearing a pink hat in snow"
    )
    assert set(everything) & set(IDENTIFIERS)
    assert caption(scene, rng, colours=0, background=0, identifier=0).endswith("a robot wearing a pink hat")


def test_full_caption():
    assert full_caption(Scene("bear", "green", "red", "night")) == "a green bear with a red belly at night"


def test_every_background_has_its_own_phrase():
    assert set(BACKGROUND_PHRASES) == set(BACKGROUNDS)
    assert len(set(BACKGROUND_PHRASES.values())) == len(BACKGROUNDS)


def test_vocabulary_is_distinct_and_ends_with_eos():
    """CLIP's text tower pools at the highest token id."""
    assert len(set(VOCABULARY)) == len(VOCABULARY) and VOCABULARY[-1] == "<eos>"


def test_prompts_consist_of_known_words(tokenizer):
    concept = concept_from_seed(0)
    for template in prompt_templates():
        ids = tokenizer(template.format(identifier=concept.identifier, class_noun=concept.noun)).input_ids
        assert tokenizer.unk_token_id not in ids and len(ids) <= CONTEXT_LENGTH


def test_tokenizer_adds_special_tokens_pads_and_marks_unknown_words(tokenizer):
    ids = tokenizer("a SKS robot on mars", padding="max_length", max_length=CONTEXT_LENGTH, truncation=True).input_ids
    words = [VOCABULARY[i] for i in ids]
    assert words[:7] == ["<bos>", "a", "sks", "robot", "on", "<unk>", "<eos>"]
    assert words[7:] == ["<pad>"] * (CONTEXT_LENGTH - 7)
    assert max(ids) == ids[6] == tokenizer.eos_token_id
