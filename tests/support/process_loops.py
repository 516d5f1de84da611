"""The loop of loops.py on several processes; as a script, one of them.

python process_loops.py FOLDER SETTINGS TROUBLE   (first: "", "slow", "log", "disk" or "locked"; last: "scorer",
"memory" or "training")
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from loops import SETTINGS, FakeModel, Mean, make_loop

from dreambooth_dpo.dpo_core.crew import Crew
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.loop.rounds import Loop
from dreambooth_dpo.dpo_core.processes.group import ProcessLost
from dreambooth_dpo.dpo_core.processes.join import joined, led, served
from dreambooth_dpo.dpo_core.processes.worker import Worker
from dreambooth_dpo.dpo_core.progress import Progress
from dreambooth_dpo.dpo_core.run.trackers import Trackers
from dreambooth_dpo.dpo_core.settings import LoopSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter


class Broken(Mean):
    def score(self, images, prompts):
        raise UserError("the scorer of the last process is broken")


class Small(FakeModel):
    """Runs out of memory, or fails otherwise, in its third training forward."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.forwards, self.error = 0, error

    def predict(self, noised, times, cond):
        self.forwards += torch.is_grad_enabled()
        if torch.is_grad_enabled() and self.forwards == 3:
            raise self.error
        return super().predict(noised, times, cond)


ERRORS = {"memory": torch.OutOfMemoryError("no more"), "training": ValueError("no such layer")}


def worker(crew: Crew, settings: LoopSettings, trouble: str) -> Worker:
    troubled = crew.rank == crew.size - 1
    model = Small(ERRORS[trouble]) if troubled and trouble in ERRORS else FakeModel()
    adapter = Adapter(model.denoiser, settings.adapter, seed=settings.sampling.seed)
    first = Broken("fidelity", 0) if troubled and trouble == "scorer" else Mean("fidelity", 0)
    return Worker(crew, model, adapter, [first, Mean("alignment", 2), Mean("judge_fidelity", 1)])


def locked(*records: object) -> None:
    raise UserError("the database is locked")


def leader(folder: Path, settings: LoopSettings, tell: Progress, crew: Crew, trouble: str) -> Loop:
    loop = make_loop(folder, settings=settings, progress=tell, crew=crew)
    if trouble == "locked":
        loop.run.add_training = locked
    return replace(loop, trackers=Trackers(loop.run, ["tensorboard"])) if trouble == "log" else loop


def main(folder: str, settings_json: str, trouble: str) -> int:
    torch.set_num_threads(1)
    settings = LoopSettings.model_validate_json(settings_json)

    def tell(stage: str, done: int, total: int, preview: object = None, note: str = "") -> None:
        print(f"{stage} {done} of {total}", flush=True)
        if trouble == "disk" and stage.startswith("train"):
            raise OSError("no space left")
        time.sleep(0.02 if trouble == "slow" else 0)

    try:
        with joined() as crew:
            if crew.rank:
                served(crew, lambda: worker(crew, settings, trouble))
                return 0
            led(crew, lambda: leader(Path(folder), settings, tell, crew, trouble), lambda loop: loop.go())
            return 0
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 3 if isinstance(error, ProcessLost) else 2


class Launch:
    """Some processes of one run, started as torchrun starts them."""

    def __init__(self, folder: Path, size: int, settings: LoopSettings = SETTINGS, trouble: str = "") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
        command = [sys.executable, __file__, str(folder), settings.model_dump_json(), trouble]
        self.processes = [
            subprocess.Popen(
                command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
            )
            for rank in range(size)
        ]  # fmt: skip

    def wait(self, seconds: float = 120) -> list[tuple[int, str]]:
        """(exit status, standard error) of each process."""
        ended = time.monotonic() + seconds
        found = []
        for process in self.processes:
            _, said = process.communicate(timeout=max(1.0, ended - time.monotonic()))
            found.append((process.returncode, said))
        return found

    def kill(self, rank: int, after: int, delay: float = 0.0) -> bool:
        """Kill a process `delay` seconds after the leader has told of its progress `after` times.

        Whether it still ran.
        """
        for _ in range(after):
            if not self.processes[0].stdout.readline():
                return False
        time.sleep(delay)
        self.processes[rank].send_signal(signal.SIGKILL)
        return True


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
