"""A step's pairs, shared out over the processes of a run."""

from __future__ import annotations

from ..crew import Crew
from ..errors import UserError
from ..settings import TrainSettings


def bounds(crew: Crew, settings: TrainSettings, part: int) -> tuple[int, int]:
    """This process' pairs in forward `part` of a step: its first place there, and the place after its last.

    Without pairs there, the second is not above the first.
    """
    size = settings.batch_size
    first, last = crew.shares(settings.accumulation * size)
    return max(0, first - part * size), min(size, last - part * size)


def check_shares(settings: TrainSettings, crew: Crew) -> None:
    """Raises UserError where a step has fewer pairs than there are processes."""
    pairs = settings.batch_size * settings.accumulation
    if pairs < crew.size:
        raise UserError(
            f"a step has {pairs} pairs (train.batch_size {settings.batch_size} x accumulation "
            f"{settings.accumulation}), and {crew.size} processes cannot share them. Start at most {pairs} processes, "
            "or raise train.batch_size."
        )
