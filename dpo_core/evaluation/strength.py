"""Recommends the strength of a trained LoRA, from held-out images at several strengths.

Every strength is measured as a round is: same prompts and seeds as the original (strength 0), gain in standard
deviations, guards. Strength s multiplies the adapter's `up` matrices by s, and so the change of every layer, as LoRA
loaders do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import ValidationError

from ..axes import AXES
from ..digits import with_interval
from ..errors import UserError
from ..settings import StopSettings, StrengthSettings
from ..settings.words import in_words
from ..statistics import by_prompt
from .held_out import Measured
from .stop_rule import Interval, Scores, standing


@dataclass(frozen=True)
class StrengthPoint:
    """One strength: raw means of both axes (first reward scorer), gain over strength 0, and failed guards in words.

    The gain is that of `stop_rule.gain_by_prompt`, in standard deviations of strength 0 within prompts.
    """

    strength: float
    fidelity: Interval
    alignment: Interval
    gain: Interval
    broken: tuple[str, ...] = ()
    set: str = field(default="", compare=False)
    """Name of its image set in the run; equal points may be of different sets."""


@dataclass(frozen=True)
class Sweep:
    """Result of a strength sweep.

    `points`: all strengths in rising order. `value`: the recommended strength (0: keep the original). `words`: why.
    """

    points: tuple[StrengthPoint, ...]
    value: float
    words: str

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the image sets, one per strength."""
        return tuple(point.set for point in self.points)


# --- numbers in, a recommendation out ---


def read_strengths(text: str) -> tuple[float, ...]:
    """Parse a list of strengths: "0, 0.5, 1" -> (0.0, 0.5, 1.0), sorted, without duplicates, 0 always included.

    Raises UserError for text that is no list of strengths.
    """
    try:
        return StrengthSettings(strengths=tuple(float(part) for part in text.split(",") if part.strip())).strengths
    except ValidationError as error:
        first = error.errors()[0]
        own = (
            first["msg"].removeprefix("Value error, ") if first["type"] == "value_error" else "give at most 50 of them"
        )
        raise UserError(f"strengths {in_words(text)}: {own}") from error
    except ValueError as error:
        raise UserError(
            f"strengths {in_words(text)} is not a list of numbers separated by commas. Write them like 0, 0.5, 1."
        ) from error


def measure(
    scores: Mapping[float, Scores], prompt_of: np.ndarray, stop: StopSettings, resamples: int
) -> tuple[StrengthPoint, ...]:
    """Measure every strength against strength 0, which must be among them.

    scores: by strength, of the same prompts and seeds [n] in one order, see `stop_rule.Scores`; prompt_of: int [n].
    """
    points = []
    for strength in sorted(scores):
        found = standing(0, scores[0.0], scores[strength], prompt_of, stop, 0.0, resamples)
        means = [Interval.of(by_prompt(scores[strength][axis], prompt_of), resamples) for axis in AXES]
        points.append(StrengthPoint(strength, *means, found.gain, found.broken))
    return tuple(points)


def recommend(points: Sequence[StrengthPoint]) -> tuple[float, str]:
    """The recommended strength, and why in words.

    Among the strengths whose gain has a lower bound above 0 and for which no guard failed, the one with the highest
    lower bound; on a tie the smaller one; 0 (keep the original) if there is none.
    """
    tried = [p for p in points if p.strength > 0]
    good = [p for p in tried if p.gain.low > 0 and not p.broken]
    best = max(good, key=lambda p: (p.gain.low, -p.strength), default=None)
    bound = best.gain.low if best else 0.0
    barred = max(
        (p for p in tried if p.broken and p.gain.low > bound), key=lambda p: (p.gain.low, -p.strength), default=None
    )
    but = (
        f"strength {barred.strength:g} rose{' more' if best else ''}, but {' and '.join(barred.broken)}"
        if barred
        else ""
    )
    if best is None:
        return 0.0, f"Keep the original (strength 0): {but or _no_gain(tried)}."
    gain, unit = best.gain, "standard deviations on held-out prompts"
    said = (
        f"Strength {best.strength:g} is recommended: gain {with_interval(gain.mean, gain.low, gain.high, unit=unit)}, "
        f"the highest lower bound of {len(tried)} strengths above 0."
    )
    if barred:
        said += f" S{but[1:]}."
    if best.strength == max(p.strength for p in tried):
        said += " It is the highest strength tried: a higher one may be better still."
    return best.strength, said


def _no_gain(tried: Sequence[StrengthPoint]) -> str:
    if any(math.isinf(p.gain.low) for p in tried):
        return "a single held-out prompt has no interval, so no gain can be shown; add held-out prompts"
    return "no strength shows a significant gain on held-out prompts"


def judge(measured: Measured, sets: Mapping[float, str], stop: StopSettings, resamples: int) -> Sweep:
    """The sweep of drawn and scored sets, by strength; 0 must be among them."""
    scores = {strength: measured.of(name) for strength, name in sets.items()}
    points = measure(scores, measured.prompt_of, stop, resamples)
    return Sweep(tuple(replace(p, set=sets[p.strength]) for p in points), *recommend(points))
