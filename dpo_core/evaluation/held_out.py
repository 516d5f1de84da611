"""Draws and scores held-out prompts by one plan, so that the images of any two models pair up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from ..crew import ALONE, Crew
from ..progress import Progress, silent
from ..protocols import Scorer, TextToImage
from ..records import Candidate
from ..run.folder import RunFolder
from ..sampling.sets import plan, sample_set
from ..scoring.sets import comparable, score_set
from ..settings import SamplingSettings, StopSettings
from .gains import Gain, paired_gain, scored_pairs
from .stop_rule import Scores, Standing, standing

EVALUATION_SALT = 999_983
"""Separates the noise of held-out images from that of candidates, whose salt is the round."""


@dataclass(frozen=True)
class Measured:
    """Scores of sets drawn by one plan: float64 [n] by (set, title), all in one order; prompt_of: int [n]."""

    sets: tuple[str, ...]
    scores: Mapping[tuple[str, str], np.ndarray]
    prompt_of: np.ndarray

    def of(self, name: str) -> Scores:
        """The scores of one set, by title."""
        return {title: values for (of, title), values in self.scores.items() if of == name}

    def gains(self, before: str, after: str) -> dict[str, Gain]:
        """By title: the gain from one set to another, with its interval over prompts.

        A scorer that gave no picture a score in both sets is left out.
        """
        one, two = self.of(before), self.of(after)
        return {
            title: paired_gain(scores, two[title], self.prompt_of)
            for title, scores in one.items()
            if not len(scores) or len(scored_pairs(scores, two[title], self.prompt_of)[0])
        }

    def standing(
        self, number: int, before: str, after: str, stop: StopSettings, winner_alarm: float, resamples: int
    ) -> Standing:
        """The standing of the model of the set `after`, from round `number`, against the model of the set `before`."""
        return standing(number, self.of(before), self.of(after), self.prompt_of, stop, winner_alarm, resamples)


def read_measured(run: RunFolder, sets: Sequence[str], titles: Mapping[str, str]) -> Measured:
    """Read the stored scores of drawn and scored sets. titles: by title, the scorer name used in the run folder.

    Raises UserError where a score is missing, or where two different scorers of one name made them.
    """
    found = {title: comparable(run, sets, kept) for title, kept in titles.items()}
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(sets[0])])
    scores = {(name, title): arrays[i] for title, arrays in found.items() for i, name in enumerate(sets)}
    return Measured(tuple(sets), scores, prompt_of)


@dataclass(frozen=True)
class HeldOutPlan:
    """The prompts, seeds and settings by which compared models draw, and the scorers that measure them.

    `sampling.seed` is not used: `seed` is that of the evaluation.
    """

    prompts: tuple[str, ...]
    seeds_per_prompt: int
    sampling: SamplingSettings
    seed: int
    scorers: Mapping[str, Scorer]
    """By title: "fidelity", "judge_alignment", ... The run folder stores scores under the scorer's own name."""
    crew: Crew = ALONE
    """Who draws and scores."""

    def candidates(self) -> list[Candidate]:
        """All pictures of a set, prompt by prompt, with the noise seeds that `measure` draws from."""
        return plan(self.prompts, self.seeds_per_prompt, self.seed, EVALUATION_SALT, self.sampling.chunk_size)

    def measure(
        self, run: RunFolder, models: Mapping[str, AbstractContextManager[TextToImage]], progress: Progress = silent
    ) -> Measured:
        """Draw what is missing of each set, then score what is missing of all; return the scores.

        models: set name -> context manager that yields the model to draw with. All drawing comes first, so that model
        and scorers take turns on the device only once. Raises UserError as `sample_set` and `score_set` do.
        """
        for name, drawing in models.items():
            with drawing as model:
                each, given = self.seeds_per_prompt, (self.sampling, self.seed, EVALUATION_SALT, progress)
                sample_set(run, name, model, self.prompts, each, *given, crew=self.crew)
        for name in models:
            score_set(run, name, list(self.scorers.values()), progress, self.crew)
        return read_measured(run, list(models), {title: scorer.name for title, scorer in self.scorers.items()})
