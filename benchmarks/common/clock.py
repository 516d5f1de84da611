"""Seconds of a benchmark: CPU time of a single-threaded process, so that waiting on a busy machine does not count; wall
time otherwise.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from ...dpo_core.peak import synchronise


class Clock:
    """Seconds by phase. Time in a nested phase counts for the nested phase only.

    `device`: "cpu", "cuda", ... Create the clock after the number of threads is set.
    """

    def __init__(self, device: str = "cpu", phases: Sequence[str] = ()) -> None:
        self.device = torch.device(device)
        self.kind = "CPU seconds" if device == "cpu" and torch.get_num_threads() == 1 else "wall seconds"
        self.on = True
        """Off, phases are neither timed nor synchronised with the device."""
        self.seconds, self._inner = dict.fromkeys(phases, 0.0), [0.0]

    def now(self) -> float:
        """The time in seconds, after the device has finished its work."""
        synchronise(self.device)
        return time.process_time() if self.kind == "CPU seconds" else time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        if not self.on:
            yield
            return
        self._inner.append(0.0)
        begun = self.now()
        try:
            yield
        finally:
            whole = self.now() - begun
            self.seconds[name] = self.seconds.get(name, 0.0) + whole - self._inner.pop()
            self._inner[-1] += whole

    def wrapped(self, name: str, call: Callable) -> Callable:
        """`call`, timed as phase `name`."""

        def timed(*args, **kwargs):
            with self.phase(name):
                return call(*args, **kwargs)

        return timed

    @contextmanager
    def timing(self, owner: object, phases: Mapping[str, str]) -> Iterator[None]:
        """Time methods of `owner`, {method: phase}, within the block."""
        for method, name in phases.items():
            # object's own: the owner may be a frozen dataclass.
            object.__setattr__(owner, method, self.wrapped(name, getattr(owner, method)))
        try:
            yield
        finally:
            for method in phases:
                object.__delattr__(owner, method)


def median_seconds(call: Callable[[], object], times: int) -> float:
    """Median seconds of several calls on the CPU."""
    clock, taken = Clock(), []
    for _ in range(times):
        begun = clock.now()
        call()
        taken.append(clock.now() - begun)
    return statistics.median(taken)
