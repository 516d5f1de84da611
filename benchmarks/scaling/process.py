"""One process of a measured round on the toybox: `python -m dreambooth_dpo.benchmarks.scaling.process FOLDER`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from ...dpo_core.backends.diffusers.model import DiffusersTextToImage
from ...dpo_core.backends.diffusers.quiet import quiet_libraries
from ...dpo_core.crew import Crew
from ...dpo_core.loop.rounds import Loop
from ...dpo_core.processes.join import joined, led, served
from ...dpo_core.processes.worker import Worker
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import LoopSettings
from ...dpo_core.training.adapter import Adapter
from ...toybox.concepts import concept_from_seed
from ...toybox.defaults import TOY_SETTINGS
from ...toybox.run import toy_pipeline, toy_prompts, toy_scorers

PHASES = {"sample": "sampling", "score": "scoring", "reference": "training", "train": "training"}
"""The phase of a stage, by the first word of its name."""
SETTINGS = LoopSettings.model_validate(
    {
        **TOY_SETTINGS.model_dump(), "rounds": 1, "stop": {"rule": "last"},
        "sampling": {**TOY_SETTINGS.sampling.model_dump(), "candidates_per_prompt": 16, "candidate_steps": 0,
                     "batch_size": 16},
        "train": {**TOY_SETTINGS.train.model_dump(), "batch_size": 16, "steps": 40},
    }
)  # fmt: skip


class Clock:
    """A Progress that adds up the seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._last = time.perf_counter()

    def __call__(self, stage: str, done: int, total: int, preview: object = None, note: str = "") -> None:
        now = time.perf_counter()
        self.seconds[PHASES.get(stage.split(" ")[0], "other")] += now - self._last
        self._last = now


def parts(crew: Crew) -> tuple:
    """(model, adapter, scorers) of concept 0 on the toybox's base model."""
    toy = concept_from_seed(0)
    model = DiffusersTextToImage(toy_pipeline("cpu"))
    return model, Adapter(model.denoiser, SETTINGS.adapter), toy_scorers(toy, "cpu")


def lead(crew: Crew, folder: Path) -> None:
    """One round with its evaluations; writes phases.json beside the run."""
    model, adapter, scorers = parts(crew)
    clock = Clock()
    loop = Loop(
        RunFolder(folder / "run"), model, adapter, toy_prompts(concept_from_seed(0)), scorers.rewards, scorers.judges,
        SETTINGS, clock, crew,
    )  # fmt: skip
    loop.go()
    (folder / "phases.json").write_text(json.dumps(dict(clock.seconds)), encoding="utf-8")


def main() -> None:
    torch.set_num_threads(1)
    quiet_libraries()
    with joined() as crew:
        if crew.rank:

            def worker() -> Worker:
                model, adapter, scorers = parts(crew)
                return Worker(crew, model, adapter, [*scorers.rewards, *scorers.judges])

            served(crew, worker)
        else:
            led(crew, lambda: Path(sys.argv[1]), lambda folder: lead(crew, folder))


if __name__ == "__main__":
    main()
