"""What the loop's trackers get: training records, held-out figures and sample grids, by steps over all rounds."""

from __future__ import annotations

from collections.abc import Mapping

from ..evaluation.held_out import Measured
from ..run.trackers import Trackers
from ..settings import TrainSettings


def global_step(train: TrainSettings, round_index: int, steps: int = 0) -> int:
    """Optimizer steps done over all rounds, `steps` of them in this round."""
    return round_index * train.steps + steps


def track_record(trackers: Trackers, train: TrainSettings, round_index: int, record: Mapping[str, float]) -> None:
    """Log one step's record under train/..., with beta where it does not adapt."""
    values = {} if train.beta is None else {"beta": train.beta}
    values |= {name: value for name, value in record.items() if name != "step"}
    named = {f"train/{name}": value for name, value in {**values, "round": round_index + 1}.items()}
    trackers.numbers("train", global_step(train, round_index, int(record["step"]) + 1), named)


def track_held_out(trackers: Trackers, train: TrainSettings, rounds: int, measured: Measured) -> None:
    """Log the held-out figures after some rounds (0: the incoming model) under held_out/<scorer>.

    From round 1 on also held_out_gain/<scorer>: gain over the incoming model, with its 95 % interval (_low, _high).
    measured: the first and the last of its sets are of the incoming model and of this one.
    """
    values: dict[str, float] = {}
    for title, gain in measured.gains(measured.sets[0], measured.sets[-1]).items():
        values[f"held_out/{title}"] = gain.after
        if rounds:
            name = f"held_out_gain/{title}"
            values |= {name: gain.gain, f"{name}_low": gain.ci95[0], f"{name}_high": gain.ci95[1]}
    trackers.numbers("held_out", global_step(train, rounds), values)
