"""The watch of a run: standings and decision from what its folder holds, kept as the facts "watch" and "kept"."""

from __future__ import annotations

from collections.abc import Sequence

from ..run.folder import RunFolder
from ..settings import LoopSettings
from .held_out import read_measured
from .stop_rule import Decision, Standing, decide, kept_words


def standings(run: RunFolder, rounds: Sequence[int], scorers: Sequence[str], settings: LoopSettings) -> list[Standing]:
    """Where each of these evaluated rounds (without the start) stands against the start.

    Raises UserError for scores of unlike scorers.
    """
    start = "evaluation_0"
    measured = read_measured(
        run, [start, *(f"evaluation_{number}" for number in rounds)], {name: name for name in scorers}
    )
    found: list[Standing] = []
    earlier = 0
    for number in rounds:
        alarms = [float(r["winner_alarm"]) for k in range(earlier, number) for r in run.training(k)]
        alarm, resamples = max(alarms, default=0.0), settings.evaluation.bootstrap
        found.append(measured.standing(number, start, f"evaluation_{number}", settings.stop, alarm, resamples))
        earlier = number
    return found


def keep_decision(run: RunFolder, found: Sequence[Standing], decision: Decision) -> None:
    """Write the facts: "watch", a list of standings, and "kept", the decision with its words."""
    run.set_fact("watch", [s.as_dict() for s in found])
    run.set_fact("kept", {**decision.as_dict(), "words": kept_words(decision, found)})


def watch(run: RunFolder, rounds: Sequence[int], scorers: Sequence[str], settings: LoopSettings) -> Decision:
    """Judge the rounds evaluated so far by the stop rule, and keep what was found."""
    found = standings(run, rounds, scorers, settings)
    decision = decide(found, settings.stop, settings.train.winner_error_warning)
    keep_decision(run, found, decision)
    return decision
