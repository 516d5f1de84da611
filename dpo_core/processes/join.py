"""One run on the processes that accelerate or torchrun has started: join, load, lead or serve, end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..crew import ALONE, Crew
from ..errors import UserError
from .group import Failed, Group, ProcessLost, attempt, expected
from .leader import Processes

L = TypeVar("L")


@contextmanager
def joined() -> Iterator[Crew]:
    """The processes of this run; ALONE where no launcher has set their number."""
    if expected() == 1:
        yield ALONE
        return
    group = Group()
    crew = Processes(group)
    try:
        yield crew
    finally:
        group.leave()


def led(crew: Crew, load: Callable[[], L], run: Callable[[L], Any]) -> Any:
    """In the leader: `run(load())` when all processes have loaded their parts; the workers end with it.

    Raises UserError of any process' loading, before anything is computed.
    """
    if not isinstance(crew, Processes):
        return run(load())
    try:
        own = load()
    except Exception:
        crew.group.collect(None)
        crew.end()
        raise
    failed = [answer for answer in crew.group.collect(None) if isinstance(answer, Failed)]
    if failed:
        crew.end()
        raise failed[0].raised()
    try:
        result = run(own)
    except ProcessLost:
        raise
    except UserError:  # raised by all in training, and elsewhere while the workers wait for a message
        crew.end()
        raise
    # After any other error the workers may be inside a step: they end when this process leaves.
    crew.end()
    return result


def served(crew: Processes, load: Callable[[], Any]) -> None:
    """In a worker: load, say whether that worked, and serve until the leader ends."""
    worker = attempt(crew.rank, load)
    crew.group.collect(worker if isinstance(worker, Failed) else None)
    if isinstance(worker, Failed):
        if crew.group.hear() != ("end",):
            raise UserError("the leader goes on without this process, whose parts could not be loaded")
        return
    worker.serve()
