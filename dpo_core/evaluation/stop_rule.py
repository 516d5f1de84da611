"""Early stopping: decides which round to keep and when to stop. Pure functions: numbers in, a decision out.

Every round is measured against the start on the same held-out prompts and seeds. Rounds are compared by the lower
confidence bound of their gain, so that a round must not only look better but be shown to be. The original is round 0
and has gain 0 by definition, so it may be the round that is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..axes import AXES, names_of
from ..digits import interval_of, with_interval
from ..json_values import High, Low
from ..settings import StopSettings
from ..statistics import bootstrap_interval, by_prompt, mean_known, spread_within

BORNE_OUT = 2.0
"""How many times the judge's gain of an axis the reward's may count, both in standard deviations."""

SATURATION_FLOOR = 0.01
"""The least rise of saturation, 0..1, that may fail its guard: a tenth of what is nearly grey is not seen."""
SATURATION_OFF = 10.0
"""The value of `stop.saturation_rise` that turns the guard off."""

Scores = Mapping[str, np.ndarray]
"""Scores of all held-out images by scorer name, float [n].

Names: "fidelity", "alignment", further scorers of an axis as "fidelity_2"; the judge's "judge_fidelity",
"judge_alignment"; the guards "copy_paste", "diversity", "saturation", "quality".
"""


@dataclass(frozen=True)
class Interval:
    """A mean over prompts with its 95 % interval; prompts without a value (NaN) are left out."""

    mean: float
    low: Low
    high: High

    @classmethod
    def of(cls, by_prompt_values: np.ndarray, resamples: int) -> Interval:
        return cls(float(mean_known(by_prompt_values)), *bootstrap_interval(by_prompt_values, resamples))


@dataclass(frozen=True)
class Standing:
    """A round measured against the start.

    `gain`: see `gain_by_prompt`. `broken`: guards that failed, in words. `winner_alarm`: highest since the evaluation
    before.
    """

    round: int
    gain: Interval
    broken: tuple[str, ...] = ()
    winner_alarm: float = 0.0


@dataclass(frozen=True)
class Decision:
    """Which round to keep, and whether to stop.

    `kept`: the round to keep, 0 for the original. `best`: the round with the highest lower bound. `stop`: whether to
    end the loop. `reason`: why, in words.
    """

    kept: int
    best: int
    stop: bool
    reason: str


def _standard_gain(before: np.ndarray, after: np.ndarray, prompt_of: np.ndarray) -> np.ndarray:
    """[prompts]: mean difference of each prompt's images, in standard deviations of the start within prompts.

    Zeros where the start has no spread. NaN where no image of a prompt has a score before and after.
    """
    known = ~np.isnan(before)
    spread = spread_within(before[known], prompt_of[known])
    return by_prompt(after - before, prompt_of) / spread if spread > 0 else np.zeros(len(np.unique(prompt_of)))


def axis_gain(axis: str, before: Scores, after: Scores, prompt_of: np.ndarray) -> np.ndarray:
    """[prompts]: gain of an axis, the mean over its reward scorers, in standard deviations of the start.

    The standard deviation is within prompts. Where a scorer has no value for a prompt, the mean is over the others.
    """
    return mean_known([_standard_gain(before[n], after[n], prompt_of) for n in names_of(axis, before)], axis=0)


def gain_by_prompt(before: Scores, after: Scores, prompt_of: np.ndarray, judge_share: float) -> np.ndarray:
    """Combined gain of each held-out prompt, float64 [prompts], in standard deviations of the start within prompts.

    It is the mean of both axes. An axis counts by the mean of its reward scorers; where a judge scores it too, by (1 -
    judge_share) * share borne out * reward + judge_share * judge, so that a gain seen only by the scorer trained on
    does not count (`borne_out`). With fidelity up by one standard deviation, alignment up by half of one and no judge,
    the gain is 0.75.
    """
    axes = []
    for axis in AXES:
        reward = axis_gain(axis, before, after, prompt_of)
        if (judge := f"judge_{axis}") in before:
            judged = _standard_gain(before[judge], after[judge], prompt_of)
            reward = (1 - judge_share) * borne_out(reward, judged) * reward + judge_share * judged
        axes.append(reward)
    return np.mean(axes, axis=0)


def borne_out(reward: np.ndarray, judged: np.ndarray) -> float:
    """The share (0..1) of the reward's gain on an axis that its judge bears out; both gains [prompts].

    A mean gain of the reward counts up to BORNE_OUT times the judge's mean gain, and not at all where the judge shows
    none; a loss counts whole. Reward +1 and judge +0.5 or more: 1. Judge +0.25: 0.5. Judge -0.5: 0.
    """
    risen, seen = float(mean_known(reward)), float(mean_known(judged))
    return 1.0 if risen <= 0 or np.isnan(seen) else min(1.0, max(0.0, BORNE_OUT * seen / risen))


def broken_guards(
    before: Scores, after: Scores, prompt_of: np.ndarray, settings: StopSettings, resamples: int
) -> tuple[str, ...]:
    """Guards that failed, in words: the judge fell, images copy the photos more, images of a prompt are too alike,
    colours are more saturated, the quality fell clearly, or fewer images have a score.
    """
    found = _fallen_judge(before, after, prompt_of, resamples)
    if "copy_paste" in before:
        rise = Interval.of(by_prompt(after["copy_paste"] - before["copy_paste"], prompt_of), resamples)
        if rise.low > settings.copy_paste_rise:
            by, interval = interval_of(rise.mean, rise.low, rise.high)
            found.append(f"pictures copy the photos more (copy-paste {by}, {interval})")
    if "diversity" in before:
        start, now = (by_prompt(s["diversity"], prompt_of) - 1 for s in (before, after))
        lost = Interval.of((1 - settings.diversity_loss) * start - now, resamples)
        if lost.low > 0:
            found.append(
                f"pictures of a prompt became alike (diversity {start.mean() + 1:.2f} to {now.mean() + 1:.2f})"
            )
    if "saturation" in before and settings.saturation_rise < SATURATION_OFF:
        start, now = (by_prompt(s["saturation"], prompt_of) for s in (before, after))
        most = start + np.maximum(settings.saturation_rise * start, SATURATION_FLOOR)
        if Interval.of(now - most, resamples).low > 0:
            found.append(f"pictures became more saturated (saturation {start.mean():.3f} to {now.mean():.3f})")
    if "quality" in before:
        change = Interval.of(by_prompt(after["quality"] - before["quality"], prompt_of), resamples)
        if change.high < -settings.quality_fall:
            by, interval = interval_of(change.mean, change.low, change.high)
            found.append(f"the quality fell ({by} logits, {interval})")
    return (*found, *_lost_scores(before, after, prompt_of, resamples))


def _fallen_judge(before: Scores, after: Scores, prompt_of: np.ndarray, resamples: int) -> list[str]:
    """In words: the judge fell over both axes, or on one whose reward did not fall.

    Where both fall on one axis and rise on the other, it is a trade that they agree on; its sum decides.
    """
    judged = {a: _standard_gain(before[n], after[n], prompt_of) for a in AXES if (n := f"judge_{a}") in before}
    if not judged:
        return []
    parts = {"the judge": np.mean(list(judged.values()), axis=0)}
    for axis, values in judged.items():
        if Interval.of(axis_gain(axis, before, after, prompt_of), resamples).high >= 0:
            parts[f"the judge's {axis}"] = values
    fell = {name: found for name, v in parts.items() if (found := Interval.of(v, resamples)).high < 0}
    if len(fell) > 1 and "the judge" in fell:
        del fell["the judge"]  # the axis says more
    said = {name: interval_of(f.mean, f.low, f.high) for name, f in fell.items()}
    alone = {name: "" if name == "the judge" else " while the reward's did not" for name in fell}
    return [f"{name} fell{alone[name]} ({by} standard deviations, {interval})" for name, (by, interval) in said.items()]


def _lost_scores(before: Scores, after: Scores, prompt_of: np.ndarray, resamples: int) -> list[str]:
    """In words, scorers that give significantly fewer pictures a score: a mean over the others would hide the loss."""
    found = []
    for name in before:
        start, now = (np.isnan(scores[name]).astype(np.float64) for scores in (before, after))
        if now.any() and Interval.of(by_prompt(now - start, prompt_of), resamples).low > 0:
            found.append(
                f"more pictures have no score by {name} ({100 * start.mean():.0f} % to {100 * now.mean():.0f} %)"
            )
    return found


def standing(
    round_number: int,
    before: Scores,
    after: Scores,
    prompt_of: np.ndarray,
    settings: StopSettings,
    winner_alarm: float,
    resamples: int,
) -> Standing:
    """The standing of the model after `round_number` rounds.

    before, after: scores of paired images, see `Scores`; prompt_of: int [n].
    """
    gain = Interval.of(gain_by_prompt(before, after, prompt_of, settings.judge_share), resamples)
    return Standing(round_number, gain, broken_guards(before, after, prompt_of, settings, resamples), winner_alarm)


def decide(standings: Sequence[Standing], settings: StopSettings, winner_error_warning: float) -> Decision:
    """Which round to keep, and whether to stop, from the standings so far in their order.

    A round can be kept when the lower bound of its gain is above 0 and no guard failed; among these the one with the
    highest lower bound is kept, else the original. The loop stops when a guard fails, when training raised the winner's
    error above its warning, or when the lower bound has not improved for `patience` rounds. Without standings the
    original is kept and the loop goes on.
    """
    good = [s for s in standings if s.gain.low > 0 and not s.broken]
    kept = max(good, key=lambda s: (s.gain.low, -s.round)).round if good else 0
    best = max(standings, key=lambda s: (s.gain.low, -s.round)).round if standings else 0
    if not standings:
        return Decision(0, 0, False, "no round has been measured yet")
    last = standings[-1]
    if last.broken:
        return Decision(kept, best, True, f"after round {last.round} {' and '.join(last.broken)}")
    if last.winner_alarm > winner_error_warning:
        said = (
            f"in round {last.round} training raised the winner's error by {last.winner_alarm:.3f} "
            f"(warning at {winner_error_warning:g})"
        )
        return Decision(kept, best, True, said)
    waited = last.round - kept
    if waited >= settings.patience:
        rounds = "round" if waited == 1 else f"{waited} rounds"
        return Decision(kept, best, True, f"the last {rounds} brought no significant gain on held-out prompts")
    hope = (
        "the gain is still rising" if waited == 0 else f"round {last.round} brought no further gain, another is tried"
    )
    return Decision(kept, best, False, hope)


def kept_words(decision: Decision, standings: Sequence[Standing]) -> str:
    """One or two sentences: which round is kept, how much better it is, and why the loop ended."""
    by_round = {s.round: s for s in standings}
    if decision.kept:
        gain = by_round[decision.kept].gain
        unit = "standard deviations on held-out prompts"
        gained = f"gain {with_interval(gain.mean, gain.low, gain.high, unit=unit)}"
        said = f"Round {decision.kept} is kept: {gained}."
    elif decision.best and by_round[decision.best].gain.low > 0:
        said = f"The original is kept: round {decision.best} rose, but {' and '.join(by_round[decision.best].broken)}."
    else:
        said = "The original is kept: no round shows a significant gain on held-out prompts."
    return said + (f" Stopped: {decision.reason}." if decision.stop else "")
