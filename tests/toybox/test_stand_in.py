"""Tests the stand-in for a vision-language model: it tells right from wrong, and errs, as a judge does."""

from __future__ import annotations

import numpy as np

from dreambooth_dpo.metrics.answers import Answerer
from dreambooth_dpo.metrics.questions import TEMPLATE
from dreambooth_dpo.toybox.captions import BACKGROUND_PHRASES
from dreambooth_dpo.toybox.stand_in import MASS, StandInAnswerer
from dreambooth_dpo.toybox.world import BACKGROUNDS, random_scene, render

SCENES = [random_scene(rng).with_(noun="robot") for rng in map(np.random.default_rng, range(120))]
IMAGES = np.stack([render(scene, i) for i, scene in enumerate(SCENES)])
ANSWERER = StandInAnswerer("robot")


def says_yes(texts: list[str]) -> np.ndarray:
    """bool [n]: whether yes is likelier than no, for one text on each image."""
    logs = [ANSWERER.answers(IMAGES[i : i + 1], TEMPLATE.format(text))[0] for i, text in enumerate(texts)]
    return np.asarray([yes > no for yes, no in logs])


def test_answers_are_mostly_right_and_sometimes_wrong():
    other = [BACKGROUNDS[(BACKGROUNDS.index(s.background) + 1 + i % 9) % 10] for i, s in enumerate(SCENES)]
    right = says_yes([f"a photo of a robot {BACKGROUND_PHRASES[s.background]}" for s in SCENES])
    wrong = says_yes([f"a photo of a robot {BACKGROUND_PHRASES[name]}" for name in other])
    assert 0.8 < right.mean() < 1 and 0 < wrong.mean() < 0.2
    hats = says_yes([f"a {s.hat or 'red'} hat" for s in SCENES])
    worn = np.asarray([s.hat is not None for s in SCENES])
    assert 0.8 < hats[worn].mean() and hats[~worn].mean() < 0.2


def test_probabilities_add_up_and_equal_pictures_get_equal_answers():
    question = TEMPLATE.format("a photo of a robot wearing a red hat in snow")
    logs = ANSWERER.answers(IMAGES[:8], question)
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), MASS)
    np.testing.assert_array_equal(ANSWERER.answers(IMAGES[3:4], question)[0], logs[3])
    assert isinstance(ANSWERER, Answerer) and ANSWERER.answers(IMAGES[:0], question).shape == (0, 2)


def test_what_a_question_does_not_name_is_not_judged():
    """No claim: even. A hat that is not asked for does not count; both claims are less likely than either."""
    even = ANSWERER.answers(IMAGES[:4], TEMPLATE.format("a robot"))
    np.testing.assert_allclose(np.exp(even), MASS / 2)
    snow, hat, both = (
        ANSWERER._claims(IMAGES[:4], f" {text} ") for text in ("in snow", "a red hat", "a red hat in snow")
    )
    np.testing.assert_array_equal(both, [*snow, *hat])
    assert ANSWERER.fingerprint != StandInAnswerer("bear").fingerprint == StandInAnswerer("bear").fingerprint
