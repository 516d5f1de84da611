"""Seconds for benchmarks: of the CPU where one thread computes, so that waiting on a busy machine does not count; else
of the wall.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class Clock:
    """Seconds by phase; a phase inside another is taken out of it.

    `device`: "cpu", "cuda", ... Make it once the threads are set.
    """

    def __init__(self, device: str = "cpu", phases: Sequence[str] = ()) -> None:
        import torch

        self.cuda = device.startswith("cuda")
        self.kind = "CPU seconds" if device == "cpu" and torch.get_num_threads() == 1 else "wall seconds"
        self.seconds, self._inner = dict.fromkeys(phases, 0.0), [0.0]

    def now(self) -> float:
        if self.cuda:
            import torch

            torch.cuda.synchronize()
        return time.process_time() if self.kind == "CPU seconds" else time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._inner.append(0.0)
        begun = self.now()
        try:
            yield
        finally:
            whole = self.now() - begun
            self.seconds[name] = self.seconds.get(name, 0.0) + whole - self._inner.pop()
            self._inner[-1] += whole

    def wrapped(self, name: str, call: Callable) -> Callable:
        """`call` with its time counted for phase `name`."""

        def timed(*args, **kwargs):
            with self.phase(name):
                return call(*args, **kwargs)

        return timed
