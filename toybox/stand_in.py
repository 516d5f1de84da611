"""A stand-in for a vision-language model in the toybox: answers yes/no questions by rule, from a blurred, noisy view.

It is a judge and not the truth. The oracle reads the picture itself, strictly, and with the expected scene; this reader
sees a degraded copy, gives graded answers that are off by chance, knows only what the question says, and never judges
what a question does not name. So it errs as a judge does: `tests/toybox/test_stand_in.py` measures how often.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np

from .background_reading import background_distances
from .captions import BACKGROUND_PHRASES, hat_phrase
from .oracle import ORACLE_VERSION, Oracle
from .world import BACKGROUNDS, HAT_COLOURS, SIZE

NOISE = 30.0
"""Standard deviation of the noise that the reader sees on every pixel. Unit: grey values, 0..255."""
DOUBT = 2.0
"""Standard deviation of the error of an answer. Unit: log-odds."""
SURE = 3.0
"""Largest log-odds of a claim before the error."""
PER_DISTANCE = 2.0
"""Log-odds of a background for each unit that it is nearer than the nearest other one (`background_distances`)."""
MASS = 0.95
"""Probability (0..1) of yes and no together; the rest stands for other answers."""
_SAID = re.compile(r'"(.*)"')
_HAT = re.compile(hat_phrase(r"(\S+)").removeprefix("wearing a "))


class StandInAnswerer:
    """Log-probabilities of yes and no by a noisy reader; an Answerer. noun: class noun of the pictures' subject.

    Of the quoted text of a question, the background's phrase and the hat's colour are claims. The answer is yes if all
    hold: its probability is the product of theirs. A text without a claim is answered even. Noise and errors are drawn
    from the picture and the question, so that equal pictures get equal answers.
    """

    def __init__(self, noun: str) -> None:
        self.name = "stand-in for a vision-language model (a noisy reader of the toybox)"
        self.fingerprint = f"stand-in-1-{ORACLE_VERSION}-{noun}-{NOISE}-{DOUBT}-{SURE}-{PER_DISTANCE}-{MASS}"
        self._noun, self._oracle = noun, Oracle()

    def answers(self, images: np.ndarray, question: str) -> np.ndarray:
        """float64 [n, 2]: log-probabilities of yes and no, for one question on images uint8 [n, 64, 64, 3]."""
        said = _SAID.search(question)
        text = f" {said[1] if said else question} ".lower()
        seen = np.stack([_degraded(image) for image in images]) if len(images) else images
        errors = np.asarray([_rng(image, question).normal(0.0, DOUBT) for image in images])
        yes = np.full(len(images), 0.0)
        claims = self._claims(seen, text)
        for odds in claims:
            yes -= np.logaddexp(0.0, -(odds + errors))
        if not claims:
            yes += np.log(0.5)
        no = np.log(-np.expm1(np.minimum(yes, -1e-9)))
        return np.stack([yes, no], axis=1) + np.log(MASS)

    def _claims(self, seen: np.ndarray, text: str) -> list[np.ndarray]:
        """Log-odds [n] of each claim of a text, before the error of the answer."""
        found = []
        for name, phrase in BACKGROUND_PHRASES.items():
            if f" {phrase} " in text:
                distances = background_distances(seen)
                asked = BACKGROUNDS.index(name)
                others = np.delete(distances, asked, axis=1).min(axis=1)
                found.append(np.clip(PER_DISTANCE * (others - distances[:, asked]), -SURE, SURE))
        hat = _HAT.search(text)
        if hat and hat[1] in HAT_COLOURS:
            worn = [reading.hat for reading in self._oracle.read(seen, [self._noun] * len(seen))]
            found.append(np.asarray([SURE if colour == hat[1] else -SURE for colour in worn]))
        return found


def _rng(image: np.ndarray, question: str = "") -> np.random.Generator:
    digest = hashlib.sha256(image.tobytes() + question.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _degraded(image: np.ndarray) -> np.ndarray:
    """What the reader sees of an image uint8 [64, 64, 3]: its 2 x 2 blocks averaged, with noise; of the same shape."""
    noisy = image + _rng(image).normal(0.0, NOISE, image.shape)
    pooled = noisy.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))
    return np.clip(np.rint(pooled.repeat(2, axis=0).repeat(2, axis=1)), 0, 255).astype(np.uint8)
