"""The processes that share the work of a run; alone, this one does all of it (processes/ shares it out)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Crew:
    """One process alone. A subclass has several: the first leads and alone opens the run folder, the others work.

    `rank`: 0 is the leader. `size`: number of processes.
    """

    rank = 0
    size = 1

    # --- stages, called by the leader ---

    def drawing(self, adapter: Mapping[str, torch.Tensor]) -> AbstractContextManager:
        """Inside, all processes draw with an adapter of this state."""
        return nullcontext()

    def draw(self, chunks: Iterable[T], how: tuple[Any, bool], draw_one: Callable[[T], R]) -> Iterator[R]:
        """What `draw_one` makes of each chunk of candidates, in order. how: as for BatchSampler, after the model."""
        return map(draw_one, chunks)

    def score(self, jobs: Iterable[T], score_one: Callable[[T], Iterable[R]]) -> Iterator[Iterable[R]]:
        """What `score_one` makes of each (scorer names, images, prompts), in order: the scores of each scorer.

        Alone, a scorer's scores are computed when they are asked for, so that those before it are stored by then.
        """
        return map(score_one, jobs)

    def train(self, job: Mapping[str, Any]) -> None:
        """The other processes begin the same training steps as this one."""

    # --- training, called by all processes in the same order ---

    def shares(self, pairs: int) -> tuple[int, int]:
        """The pairs first..last-1 of a step's that are this process' own: equal parts, differing by one at most."""
        return self.rank * pairs // self.size, (self.rank + 1) * pairs // self.size

    def once(self, what: Callable[[], object]) -> None:
        """Run `what` in the leader alone; an error of it is raised in all processes."""
        what()

    def together(self, compute: Callable[[], R]) -> R:
        """The result of this process' own part; out of memory in one process is out of memory in all."""
        return compute()

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor, in place, by its sum over all processes."""


ALONE = Crew()
"""This process without others."""


def waves(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items, `size` at a time."""
    wave: list[T] = []
    for item in items:
        wave.append(item)
        if len(wave) == size:
            yield wave
            wave = []
    if wave:
        yield wave
