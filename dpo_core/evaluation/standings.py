"""Early stopping of a run: reads standings from its folder, decides, and stores both as facts "watch" and "kept"."""

from __future__ import annotations

from collections.abc import Sequence

from ..json_values import to_json
from ..run.folder import RunFolder
from ..settings import LoopSettings
from .held_out import read_measured
from .stop_rule import Decision, Standing, decide, kept_words


def standings(run: RunFolder, rounds: Sequence[int], scorers: Sequence[str], settings: LoopSettings) -> list[Standing]:
    """The standing of each evaluated round (without the start) against the start.

    Raises UserError where two different scorers of one name made the scores.
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
    """Store the facts "watch" (a list of standings) and "kept" (the decision and its words)."""
    run.set_fact("watch", [to_json(s) for s in found])
    run.set_fact("kept", {**to_json(decision), "words": kept_words(decision, found)})


def watch(run: RunFolder, rounds: Sequence[int], scorers: Sequence[str], settings: LoopSettings) -> Decision:
    """Apply early stopping to the rounds evaluated so far; store and return the decision."""
    found = standings(run, rounds, scorers, settings)
    decision = decide(found, settings.stop, settings.train.winner_error_warning)
    keep_decision(run, found, decision)
    return decision
