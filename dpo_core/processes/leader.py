"""The crew of several processes: what the leader hands out, and what all do together in training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import torch

from ..crew import Crew, waves
from ..errors import UserError
from ..training.gradient_check import NotDifferentiable
from .group import Failed, Group, ProcessLost

T = TypeVar("T")
R = TypeVar("R")
_KINDS = {kind.__name__: kind for kind in (UserError, NotDifferentiable, torch.OutOfMemoryError)}


def sent_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state on the CPU, as it is sent."""
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


class Processes(Crew):
    """Several processes, of which rank 0 leads. The workers run `worker.serve`."""

    def __init__(self, group: Group) -> None:
        self.group, self.rank, self.size = group, group.rank, group.size

    # --- stages ---

    @contextmanager
    def drawing(self, adapter: Mapping[str, torch.Tensor]) -> Iterator[None]:
        self.group.tell(("adapter", sent_state(adapter)))
        try:
            yield
        except ProcessLost:
            raise
        except UserError:  # the workers wait for a message; after any other error they end when this process leaves
            self.group.tell(("rest",))
            raise
        self.group.tell(("rest",))

    def draw(self, chunks: Iterable[T], how: tuple[Any, bool], draw_one: Callable[[T], R]) -> Iterator[R]:
        return self._shared("draw", chunks, how, draw_one)

    def score(self, jobs: Iterable[T], score_one: Callable[[T], Iterable[R]]) -> Iterator[Iterable[R]]:
        return self._shared("score", jobs, (), lambda job: list(score_one(job)))

    def _shared(self, command: str, items: Iterable[T], more: tuple, do_one: Callable[[T], R]) -> Iterator[R]:
        """A wave at a time: the leader does the first item, each worker one of the others; results in order."""
        for wave in waves(items, self.size):
            self.group.tell((command, *more, [None, *wave[1:]]))
            own, error = None, None
            try:
                own = do_one(wave[0])
            except Exception as raised:
                error = raised
            found = self.group.collect(None)
            if error is not None:
                raise error
            yield own
            for result in found[1 : len(wave)]:
                if isinstance(result, Failed):
                    raise result.raised()
                yield result

    def train(self, job: Mapping[str, Any]) -> None:
        self.group.tell(("train", job))

    def end(self) -> None:
        """The workers end."""
        self.group.tell(("end",))

    # --- training ---

    def once(self, what: Callable[[], object]) -> None:
        if self.rank:
            _raise(self.group.hear())
            return
        try:
            what()
        except Exception as error:
            self.group.tell((type(error).__name__, _words(error)))
            raise
        self.group.tell(None)

    def together(self, compute: Callable[[], R]) -> R:
        found, lack, error = None, None, None
        try:
            found = compute()
        except torch.OutOfMemoryError as raised:
            lack = str(raised)  # the error itself would keep the tensors of the failed call
        except Exception as raised:
            error = raised
        worst = self.group.highest(2 if error else int(lack is not None))
        if worst == 2:
            self._raise_together(error)
        if worst == 1:
            raise torch.OutOfMemoryError(lack or "another process of this run ran out of memory")
        return found

    def _raise_together(self, error: Exception | None) -> NoReturn:
        """Raise this process' error, or else the first one of the others, in all processes at the same place."""
        failed = [answer for answer in self.group.exchange(Failed(self.rank, error) if error else None) if answer]
        if error is None:
            raise failed[0].raised()
        if self.rank and not isinstance(error, UserError):
            logging.error("process %d of this run failed", self.rank, exc_info=error)
            raise failed[0].raised() from error  # a UserError: this process then waits for the leader's end
        raise error

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        self.group.sum(tensors)


def _words(error: Exception) -> str:
    """The words of an error of the leader, for the others."""
    meant = isinstance(error, tuple(_KINDS.values()))
    return str(error) if meant else f"process 0 of this run failed: {type(error).__name__}: {error}"


def _raise(said: tuple[str, str] | None) -> None:
    """Raise the leader's error in a worker: of its own kind where all act on it, else as a UserError."""
    if said is not None:
        raise _KINDS.get(said[0], UserError)(said[1])
