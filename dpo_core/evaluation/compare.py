"""Ranks any number of LoRAs by held-out pictures of the same prompts and seeds. Pure: numbers in, a ranking out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..axes import AXES
from ..digits import with_interval
from ..settings import StopSettings
from ..statistics import by_prompt
from .stop_rule import Interval, Scores, broken_guards, gain_by_prompt

WITHOUT = "without a LoRA"
"""The name of the model itself, which every LoRA is measured against."""


@dataclass(frozen=True)
class Place:
    """One LoRA (or the model without one) in the ranking.

    `fidelity`, `alignment`: raw means of the first reward scorers. `gain`: that of `stop_rule.gain_by_prompt` against
    the model without a LoRA, in standard deviations within prompts. `behind`: how much lower its gain is than that of
    the best one, paired over prompts. `level`: whether it cannot be told apart from the best one. `front`: whether no
    other has both means higher.
    """

    name: str
    fidelity: Interval
    alignment: Interval
    gain: Interval
    behind: Interval
    broken: tuple[str, ...] = ()
    level: bool = False
    front: bool = False


@dataclass(frozen=True)
class Comparison:
    """Result: all places, the highest gain first; `best`: the name of the one to use; `words`: why."""

    places: tuple[Place, ...]
    best: str
    words: str


def compare(scores: Mapping[str, Scores], prompt_of: np.ndarray, stop: StopSettings, resamples: int) -> Comparison:
    """Rank models by their gain over `WITHOUT`, which must be among them.

    scores: by name, of the same prompts and seeds [n] in one order, see `stop_rule.Scores`; prompt_of: int [n]. The
    best one has the highest mean gain of those for which no guard failed; it is the model without a LoRA (gain 0) where
    no other's gain has a lower bound above 0.
    """
    before = scores[WITHOUT]
    guarded = {n: v for n, v in before.items() if n != "saturation"}  # a LoRA may well have been taught other colours
    gains = {n: gain_by_prompt(before, after, prompt_of, stop.judge_share) for n, after in scores.items()}
    broken = {
        n: () if n == WITHOUT else broken_guards(guarded, after, prompt_of, stop, resamples)
        for n, after in scores.items()
    }
    ranked = sorted(scores, key=lambda n: (-float(gains[n].mean()), n))
    sound = [n for n in ranked if not broken[n] and (n == WITHOUT or Interval.of(gains[n], resamples).low > 0)]
    best = sound[0]
    places = []
    for name in ranked:
        means = [Interval.of(by_prompt(scores[name][axis], prompt_of), resamples) for axis in AXES]
        behind = Interval.of(gains[best] - gains[name], resamples)
        level = name != best and behind.low <= 0 <= behind.high
        places.append(Place(name, *means, Interval.of(gains[name], resamples), behind, broken[name], level))
    done = tuple(replace(place, front=_on_front(place, places)) for place in places)
    return Comparison(done, best, _words(done, best))


def _on_front(place: Place, others: Sequence[Place]) -> bool:
    """Whether no other place has both means at least as high and one of them higher."""
    mine = place.fidelity.mean, place.alignment.mean
    return not any(
        o.fidelity.mean >= mine[0] and o.alignment.mean >= mine[1] and (o.fidelity.mean, o.alignment.mean) != mine
        for o in others
    )


def _words(places: Sequence[Place], best: str) -> str:
    by_name = {place.name: place for place in places}
    tried, chosen = len(places) - 1, by_name[best]
    unit = "standard deviations on held-out prompts"
    if best == WITHOUT:
        said = f"None of {tried} LoRAs is shown to be better than the model without one."
    else:
        gain = chosen.gain
        said = f"{best} is the best of {tried}: gain {with_interval(gain.mean, gain.low, gain.high, unit=unit)}."
    if level := [place.name for place in places if place.level]:
        shown = ", ".join(level[:6]) + (f" and {len(level) - 6} more" if len(level) > 6 else "")
        said += f" Cannot be told apart from it on these prompts: {shown}. More held-out prompts tell more apart."
    higher = [p for p in places if p.broken and p.gain.mean > chosen.gain.mean]
    said += "".join(f" {p.name} has a higher gain, but {' and '.join(p.broken)}." for p in higher[:3])
    if best != WITHOUT and tried > 1:
        said += " It was chosen among several on these prompts, so its own gain is slightly overestimated."
    return said
