"""Held-out prompts drawn and scored by one plan, so that the pictures of any two models pair up: same prompts, seeds
and settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from ..progress import Progress, silent
from ..protocols import Scorer, TextToImage
from ..run.folder import RunFolder
from ..sampling.sets import sample_set
from ..scoring.sets import comparable, score_set
from ..settings import SamplingSettings, StopSettings
from .gains import Gain, paired_gain
from .stop_rule import Scores, Standing, standing

EVALUATION_SALT = 999_983
"""Keeps the noise of held-out pictures apart from that of candidates, whose salt is the round."""


@dataclass(frozen=True)
class Measured:
    """Scores of sets that were drawn by one plan: float64 [n] by (set, title), in one order; prompt_of: int [n]."""

    sets: tuple[str, ...]
    scores: Mapping[tuple[str, str], np.ndarray]
    prompt_of: np.ndarray

    def of(self, name: str) -> Scores:
        """The scores of one set by title."""
        return {title: values for (of, title), values in self.scores.items() if of == name}

    def gains(self, before: str, after: str) -> dict[str, Gain]:
        """By title: what changed from one set to another, with its interval over prompts."""
        one, two = self.of(before), self.of(after)
        return {title: paired_gain(scores, two[title], self.prompt_of) for title, scores in one.items()}

    def standing(
        self, number: int, before: str, after: str, stop: StopSettings, winner_alarm: float, resamples: int
    ) -> Standing:
        """Where the model of the set `after`, that of round `number`, stands against the model of `before`."""
        return standing(number, self.of(before), self.of(after), self.prompt_of, stop, winner_alarm, resamples)


def read_measured(run: RunFolder, sets: Sequence[str], titles: Mapping[str, str]) -> Measured:
    """Kept scores of drawn and scored sets. titles: of each scorer, the name under which the folder keeps its scores.

    Raises UserError where a score is missing, and where two scorers of one name made the scores.
    """
    found = {title: comparable(run, sets, kept) for title, kept in titles.items()}
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(sets[0])])
    scores = {(name, title): arrays[i] for title, arrays in found.items() for i, name in enumerate(sets)}
    return Measured(tuple(sets), scores, prompt_of)


@dataclass(frozen=True)
class HeldOutPlan:
    """What every model that is compared draws, and who scores it.

    `sampling.seed` is not used: `seed` is that of the evaluation.
    """

    prompts: tuple[str, ...]
    seeds_per_prompt: int
    sampling: SamplingSettings
    seed: int
    scorers: Mapping[str, Scorer]
    """By title: "fidelity", "judge_alignment", ...; a scorer's own name is the one under which the run folder keeps its
    scores.
    """

    def measure(
        self, run: RunFolder, models: Mapping[str, AbstractContextManager[TextToImage]], progress: Progress = silent
    ) -> Measured:
        """Draw what is missing of each set (name -> context in which its model draws), then score what is missing of
        them all.

        All drawing comes first: model and scorers take turns on the device once. Raises UserError as `sample_set` and
        `score_set` do.
        """
        for name, drawing in models.items():
            with drawing as model:
                each = self.seeds_per_prompt
                sample_set(run, name, model, self.prompts, each, self.sampling, self.seed, EVALUATION_SALT, progress)
        for name in models:
            score_set(run, name, list(self.scorers.values()), progress)
        return read_measured(run, list(models), {title: scorer.name for title, scorer in self.scorers.items()})
