"""Progress of a whole run, and the time left by the measured rate of its stages. Numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..settings import LoopSettings
from .drafts import drafting
from .estimate import drawn_in, forwards, training_forwards, used_again

WORDS = {
    "draw": "sampling candidates",
    "score": "scoring candidates",
    "pairs": "building pairs",
    "finish": "finishing the drafts in pairs",
    "rescore": "scoring finished candidates",
    "train": "training",
    "measure": "drawing held-out pictures",
    "judge": "scoring held-out pictures",
}
"""Stages of a round, in their order, in words."""
NAMED = {"draw": "drawing", "train": "training", "score": "scoring"}
"""Kinds of work, each with a rate of its own, in words."""
RATE = {"draw": "draw", "finish": "draw", "measure": "draw", "train": "train"}
"""Kind of work of each stage; scoring where it is not named."""
THERE = 2e-4
"""Less time for a unit means that it was there already, from before. Unit: seconds."""


@dataclass(frozen=True)
class Part:
    """A stage of one round: its number of units (pictures, training steps), and forwards of the denoiser for a unit."""

    round: int
    stage: str
    units: int
    weight: float = 1.0

    @property
    def kind(self) -> str:
        return RATE.get(self.stage, "score")

    @property
    def size(self) -> float:
        """Forwards of the whole stage."""
        return self.units * self.weight


def plan_parts(settings: LoopSettings, prompts: int, held_out: int) -> tuple[Part, ...]:
    """The stages of all rounds in their order. prompts, held_out: numbers of training and held-out prompts.

    Without `evaluation.every_round` nothing is measured. Of drafts, all are counted as finished. A picture that is
    scored counts as one forward.
    """
    s, evaluation = settings.sampling.of_candidates(), settings.evaluation
    pictures = held_out * evaluation.seeds_per_prompt
    full, measured, parts = forwards(s), forwards(settings.sampling), []
    for number in range(settings.rounds):
        each = drawn_in(settings, prompts, number)
        parts += [Part(number, "draw", each, forwards(drafting(s)) if s.draft_steps else full)]
        parts += [Part(number, "score", each + used_again(settings, prompts, number)), Part(number, "pairs", 0)]
        if s.draft_steps:
            parts += [Part(number, "finish", each, full), Part(number, "rescore", each)]
        parts += [Part(number, "train", settings.train.steps, training_forwards(settings))]
        if evaluation.every_round:
            sets = 1 if number else 2  # the first round measures the original, too
            parts += [Part(number, "measure", sets * pictures, measured), Part(number, "judge", sets * pictures)]
    return tuple(parts)


@dataclass(frozen=True)
class Left:
    """Time left of a run. seconds: None while nothing has been measured.

    unmeasured: kinds of work still to come without a rate of their own, in words. Of these, training and drawing count
    by their forwards, at the rate of the other; scoring is not in `seconds`.
    """

    seconds: float | None
    unmeasured: tuple[str, ...] = ()

    def words(self) -> str:
        """ "about 3 min left (not measured yet: training)", or "measuring"."""
        from ..progress import duration

        if self.seconds is None:
            return "measuring"
        rest = f" (not measured yet: {', '.join(self.unmeasured)})" if self.unmeasured else ""
        return f"about {duration(self.seconds)} left{rest}"


def share_done(parts: Sequence[Part], done: Sequence[float]) -> float:
    """Share (0..1) of the run's forwards that are done. done: units of each part."""
    whole = sum(part.size for part in parts)
    return sum(min(units, part.units) * part.weight for part, units in zip(parts, done, strict=True)) / whole


def time_left(parts: Sequence[Part], done: Sequence[float], rates: Mapping[str, float]) -> Left:
    """Time left of the parts. done: units of each. rates: measured seconds for one forward, by kind.

    Drawing at 0.1 s a forward and nothing else measured, 10 pictures of 20 forwards and 5 training steps of 40 to come:
    20 s + 20 s = 40 s, training unmeasured.
    """
    rest = {kind: 0.0 for kind in NAMED}
    for part, units in zip(parts, done, strict=True):
        rest[part.kind] += max(0.0, part.units - units) * part.weight
    unmeasured = tuple(name for kind, name in NAMED.items() if rest[kind] > 0 and kind not in rates)
    other = {"draw": "train", "train": "draw"}
    known = {kind: rates.get(kind, rates.get(other.get(kind, ""), 0.0)) for kind in rest}
    if any(rest[kind] > 0 and not known[kind] for kind in other) or (not rates and any(rest.values())):
        return Left(None, unmeasured)
    return Left(sum(rest[kind] * known[kind] for kind in rest), unmeasured)


@dataclass
class _Rate:
    """Seconds and forwards of one kind of work.

    The first report, with loading and warm-up in it, counts only while it is alone.
    """

    first: tuple[float, float] | None = None
    seconds: float = 0.0
    forwards: float = 0.0

    def add(self, seconds: float, forwards: float) -> None:
        if self.first is None:
            self.first = (seconds, forwards)
        else:
            self.seconds, self.forwards = self.seconds + seconds, self.forwards + forwards

    def value(self) -> float | None:
        """Seconds for one forward; None before the first report."""
        if self.first is None:
            return None
        seconds, forwards = (self.seconds, self.forwards) if self.forwards else self.first
        return seconds / forwards


@dataclass
class Meter:
    """What is done of a plan, and how fast. Times are seconds of one clock that never goes back."""

    parts: tuple[Part, ...]
    started: float
    now: float = field(init=False)
    partial: tuple[int, float] = field(init=False, default=(0, 0.0))
    """A place in the plan, and units of it that are on their way."""
    done: list[float] = field(init=False)
    _counts: dict[tuple[int, str], dict[str, int]] = field(init=False, default_factory=dict)
    _rates: dict[str, _Rate] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.now, self.done = self.started, [0.0] * len(self.parts)

    def begin(self, round_index: int, stage: str, now: float) -> None:
        """A stage begins: the stages before it are over. Time since the last report counts for no stage."""
        self.now = now
        if (place := self._place(round_index, stage)) is not None:
            self.done[:place] = [float(part.units) for part in self.parts[:place]]

    def report(self, round_index: int, stage: str, name: str, done: int, of: int, most: int, now: float) -> None:
        """`done` of the `of` units of the set `name` are there; one report adds `most` units at most.

        A stage may have several sets. Units that were there before the run, or take no time, give no rate.
        """
        place = self._place(round_index, stage)
        if place is None:
            return
        part, counts = self.parts[place], self._counts.setdefault((round_index, stage), {})
        new, counts[name] = min(done - counts.get(name, 0), most), done
        self.done[:place] = [float(earlier.units) for earlier in self.parts[:place]]
        self.done[place] = float(min(part.units, sum(counts.values())))
        self.partial = (place, 0.0)
        took, self.now = now - self.now, now
        if new > 0 and took >= THERE * new:
            self._rates.setdefault(part.kind, _Rate()).add(took, new * part.weight)

    def partly(self, round_index: int, stage: str, units: float) -> None:
        """Units of a stage that are on their way, beside those that are done: for the bar alone."""
        if (place := self._place(round_index, stage)) is not None:
            self.partial = (place, units)

    def end(self, round_index: int, stage: str) -> None:
        """A stage is over, and those before it."""
        if (place := self._place(round_index, stage)) is not None:
            self.done[: place + 1] = [float(part.units) for part in self.parts[: place + 1]]

    def rates(self) -> dict[str, float]:
        """Measured seconds for one forward, by kind of work."""
        known = list(self._rates.items())  # another thread may report meanwhile
        return {kind: value for kind, rate in known if (value := rate.value()) is not None}

    def share(self) -> float:
        """Share (0..1) of the run's forwards that are done."""
        return share_done(self.parts, self._with_partial())

    def left(self) -> Left:
        """Time left, as of the last report."""
        return time_left(self.parts, self._with_partial(), self.rates())

    def _with_partial(self) -> list[float]:
        place, units = self.partial
        now = list(self.done)
        if now:
            now[place] = min(float(self.parts[place].units), now[place] + units)
        return now

    def _place(self, round_index: int, stage: str) -> int | None:
        found = (i for i, part in enumerate(self.parts) if (part.round, part.stage) == (round_index, stage))
        return next(found, None)
