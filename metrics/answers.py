"""Alignment by questions: how surely a model that sees the image answers yes to questions of its prompt.

After VQAScore (arXiv 2404.01291), which takes the probability of "yes" at the first token of the answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from .errors import MetricsError
from .pictures import check_images
from .questions import MOST_PARTS, TEMPLATE, questions_of

LEAST_MASS = 0.01
"""Least probability (0..1) of yes and no together, in the median of the answers to one prompt."""
Unit = Literal["probability", "log_odds"]


@runtime_checkable
class Answerer(Protocol):
    """Answers yes/no questions about images."""

    name: str
    fingerprint: str
    """Hash of everything that an answer depends on."""

    def answers(self, images: np.ndarray, question: str) -> np.ndarray:
        """float64 [n, 2]: log-probabilities of yes and of no, for one question on images uint8 [n, H, W, 3], n >= 1."""
        ...


class QuestionScorer:
    """The mean over the questions of a prompt of how surely the answer is yes; a Scorer.

    With p_yes and p_no the probabilities of the two answers, a question counts by p_yes / (p_yes + p_no), 0..1
    ("probability"; VQAScore's P(yes) where the model answers nothing else), or by log(p_yes / p_no) ("log_odds", which
    still tells apart answers that are all near 1). The question on the whole prompt and those on its parts
    (`questions_of`; none with parts=False) count alike. `strip` and `identifier`: as for AlignmentScorer.
    """

    def __init__(
        self,
        answerer: Answerer,
        strip: Callable[[str], str],
        name: str = "judge_alignment",
        identifier: str = "",
        parts: bool = True,
        unit: Unit = "probability",
    ) -> None:
        if unit not in ("probability", "log_odds"):
            raise MetricsError(f"the unit of the answers is {unit!r}: it must be probability or log_odds.")
        given = f"questions-1|{answerer.fingerprint}|{identifier}|{parts} {MOST_PARTS}|{unit}|{TEMPLATE}"
        self.name, self.fingerprint = name, hashlib.sha256(given.encode()).hexdigest()
        self.title = f"Alignment (judge: {answerer.name})" if name == "judge_alignment" else ""
        self._answerer, self._strip, self._parts, self._unit = answerer, strip, parts, unit

    def rest(self) -> None:
        """Move the answering model off the GPU, if it is on one, until the next score."""
        if callable(leave := getattr(self._answerer, "rest", None)):
            leave()

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n] for uint8 images [n, H, W, 3] and their n prompts.

        Raises MetricsError when the counts differ, for answers that are not finite, and for a model that answers
        neither yes nor no.
        """
        if len(check_images(images)) != len(prompts):
            raise MetricsError(f"{len(images)} images for {len(prompts)} prompts: give one prompt per image.")
        texts = np.asarray([self._strip(prompt) for prompt in prompts], object)
        found = np.zeros(len(images))
        for text in dict.fromkeys(texts):
            where = np.nonzero(texts == text)[0]
            answers = [self._answerer.answers(images[where], q) for q in questions_of(text, self._parts)]
            self._check(np.concatenate(answers))
            found[where] = np.mean([self._value(each) for each in answers], axis=0)
        return found

    def _value(self, logs: np.ndarray) -> np.ndarray:
        odds = logs[:, 0] - logs[:, 1]
        return odds if self._unit == "log_odds" else np.exp(-np.logaddexp(0.0, -odds))

    def _check(self, logs: np.ndarray) -> None:
        if not np.isfinite(logs).all():
            raise MetricsError(
                f"{self._answerer.name} gave an answer that is not finite: its weights are damaged, or overflow in "
                "half precision. Download them again, or use bf16 or fp32."
            )
        mass = float(np.median(np.exp(np.logaddexp.reduce(logs, axis=1))))
        if mass < LEAST_MASS:
            raise MetricsError(
                f"{self._answerer.name} begins {mass:.2%} of its answers with yes or no, so these say "
                "nothing: it may be a model that thinks before it answers, or one that was not trained to answer. "
                "Choose an instruct model that does not think."
            )
