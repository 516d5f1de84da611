"""The group of processes: joining, messages from the leader, answers, sums (torch.distributed)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from ..errors import UserError

R = TypeVar("R")
_TIMEOUT = timedelta(days=7)
"""A process that dies is noticed by its closed connection, so that a wait may be as long as a stage."""


class ProcessLost(UserError):
    """Another process of this run has ended."""


def expected() -> int:
    """Number of processes of this run, by the environment that torchrun and accelerate set."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """Number of this process among all of the run."""
    return int(os.environ["RANK"]) if expected() > 1 else 0


def local_rank() -> int:
    """Number of this process on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def talking() -> Iterator[None]:
    """Raises ProcessLost instead of torch's error when another process has ended."""
    try:
        yield
    except (RuntimeError, distributed.DistBackendError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ProcessLost(
            f"another process of this run has ended ({reason}). Its own message is above, if it had time for one; a "
            "process that was killed had none (out of main memory is the usual cause). All that was committed is kept: "
            "start the run again with --resume, with any number of processes."
        ) from error


class Group:
    """The processes of a run. Messages are pickled objects between processes of one user that started together.

    Messages and flags go by gloo; sums of a GPU's tensors by NCCL.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        with talking():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(backend, timeout=_TIMEOUT)
            # Objects go by a group of their own: a group with NCCL would move them to the GPU.
            self.words = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def tell(self, message: Any) -> None:
        """The leader's message to all others."""
        with talking():
            distributed.broadcast_object_list([message], src=0, group=self.words)

    def hear(self) -> Any:
        """The next message of the leader."""
        message = [None]
        with talking():
            distributed.broadcast_object_list(message, src=0, group=self.words)
        return message[0]

    def collect(self, own: Any) -> list[Any]:
        """What each process has, by rank, in the leader; [] in the others."""
        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with talking():
            distributed.gather_object(own, found, dst=0, group=self.words)
        return found or []

    def highest(self, number: int) -> int:
        """The highest number of all processes; the same in all."""
        value = torch.tensor([number])
        with talking():
            distributed.all_reduce(value, distributed.ReduceOp.MAX, group=self.words)
        return int(value)

    def exchange(self, own: Any) -> list[Any]:
        """What each process has, by rank, in all of them."""
        found: list[Any] = [None] * self.size
        with talking():
            distributed.all_gather_object(found, own, group=self.words)
        return found

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor, in place, by its sum over all processes; all of one device and dtype float32."""
        if not tensors:
            return
        flat = torch.cat([t.detach().reshape(-1) for t in tensors])
        with talking():
            distributed.all_reduce(flat)
        with torch.no_grad():
            for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def leave(self) -> None:
        """End the group. Nothing may hold it afterwards: a thread of gloo that outlives the interpreter aborts it."""
        self.words = None
        distributed.destroy_process_group()


class Failed:
    """An error of a worker, to be raised in the leader."""

    def __init__(self, rank: int, error: Exception) -> None:
        self.rank, self.error = rank, f"{type(error).__name__}: {error}"
        self.said = str(error) if isinstance(error, UserError) else None

    def raised(self) -> UserError:
        return UserError(self.said or f"process {self.rank} of this run failed: {self.error}")


def attempt(rank: int, compute: Callable[[], R]) -> R | Failed:
    """The result, or the error as an object, so that a process that waits for it hears of it."""
    try:
        return compute()
    except Exception as error:
        return Failed(rank, error)
