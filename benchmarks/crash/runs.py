"""The run that is killed: three rounds of the toybox by the headless way, in forked processes."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from ...dpo_core.config import RunConfig, read_config
from ...dpo_core.loop.facts import finish
from ...headless import Parts, open_loop, parts_from_config, settled_config
from .disk import record

PAUSE = 0.008
"""Seconds before every flush: see `disk.record`."""
TRAIN, HELD_OUT = 2, 2
SETTINGS = {
    "rounds": 3,
    "sampling": {
        "candidates_per_prompt": 3, "steps": 2, "guidance": 1.0, "width": 64, "height": 64, "batch_size": 3,
    },
    "pairs": {"rule": "weighted_sum", "margin": 0.0},
    "adapter": {"rank": 2, "alpha": 2.0},
    "train": {"steps": 4, "batch_size": 1, "checkpoint_every": 2, "learning_rate": 1e-3, "winner_error_collapse": 10.0},
    "evaluation": {"seeds_per_prompt": 2, "bootstrap": 100},
    "stop": {"rule": "best", "patience": 5},
}  # fmt: skip
"""Small, with several commits in every stage."""


def make_project(folder: Path) -> Path:
    """Write a toybox concept as a user's project (photos, prompts, config.yaml); return the config's path."""
    from PIL import Image

    from ...toybox.concepts import concept_from_seed
    from ...toybox.models import weights_folder
    from ...toybox.prompts import train_and_held_out

    toy = concept_from_seed(0)
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(toy.to_concept().references):
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    train, held_out = train_and_held_out(toy)
    (folder / "prompts.txt").write_text("\n".join(train[:TRAIN]), encoding="utf-8")
    (folder / "held_out.txt").write_text("\n".join(held_out[:HELD_OUT]), encoding="utf-8")
    config = {
        **SETTINGS,
        "model": {"path": str(weights_folder("pipeline")), "device": "cpu"},
        "concept": {"identifier": toy.identifier, "class_noun": toy.noun, "references": "photos"},
        "scorers": {"reward": str(weights_folder("reward")), "judge": str(weights_folder("judge"))},
        "prompts": "prompts.txt",
        "held_out_prompts": "held_out.txt",
        "output": "run",
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: exit status (-9: killed), its seconds, and what it printed when it failed."""

    status: int
    seconds: float
    said: str


class Runner:
    """Forks attempts at one run, so that imports and weights are loaded once, as `run --resume` would load them.

    The run is first made once in this process (`warm`): no attempt then spends its time on imports.
    """

    def __init__(self, project: Path) -> None:
        torch.set_num_threads(1)
        self.config: RunConfig = settled_config(read_config(make_project(project)))
        self.parts: Parts = parts_from_config(self.config)
        self.warm = project / "warm"
        self._run(self.warm)

    def attempt(self, folder: Path, journal: Path, shelf: Path, kill_after: float | None) -> Ended:
        """Run with --resume in a process of its own; SIGKILL it after so many seconds unless it has ended."""
        said, begun = journal.with_suffix(".txt"), time.monotonic()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            self._child(folder, journal, shelf, said)
        pid, status = 0, 0
        while not pid:
            pid, status = os.waitpid(child, os.WNOHANG)
            if not pid:
                if kill_after is not None and time.monotonic() - begun >= kill_after:
                    os.kill(child, signal.SIGKILL)
                    pid, status = os.waitpid(child, 0)
                else:
                    time.sleep(0.001)
        text = said.read_text(encoding="utf-8") if said.is_file() else ""
        return Ended(os.waitstatus_to_exitcode(status), time.monotonic() - begun, text)

    def _child(self, folder: Path, journal: Path, shelf: Path, said: Path) -> None:
        """The forked process: it leaves by os._exit alone, so that nothing of the parent's runs twice."""
        status = 1
        try:
            record(os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), shelf, PAUSE)
            self._run(folder)
            status = 0
        except BaseException:
            said.write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(status)

    def _run(self, folder: Path) -> None:
        """What `dreambooth-dpo run --resume` does after loading (headless.run_loop)."""
        from ...dpo_core.progress import silent
        from ...dpo_core.report.page import write_report
        from ...dpo_core.training.adapter import Adapter

        config = self.config.model_copy(update={"output": folder})
        adapter = Adapter(self.parts.model.denoiser, config.adapter, seed=config.sampling.seed)
        loop = open_loop(config, self.parts, adapter, True, silent)
        finish(loop, loop.go(), "result")
        write_report(loop.run)
