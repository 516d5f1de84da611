"""What the processes other than the leader do: they follow its messages, and never open the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..protocols import Scorer, TextToImage
from ..sampling.sets import BatchSampler
from ..training.adapter import Adapter, drawing
from ..training.groups import received
from ..training.memory.levels import streams
from ..training.steps import train_steps
from ..training.trainer import Trainer
from .group import attempt
from .leader import Processes


class Worker:
    """A process with the same model, adapter and scorers as the leader."""

    def __init__(self, crew: Processes, model: TextToImage, adapter: Adapter, scorers: Sequence[Scorer]) -> None:
        self.crew, self.model, self.adapter = crew, model, adapter
        self.scorers = {scorer.name: scorer for scorer in scorers}
        self.samplers: dict[str, BatchSampler] = {}
        """By settings: each remembers how many pictures fit."""
        self.open = ExitStack()

    def serve(self) -> None:
        """Follow the leader until it says end."""
        group = self.crew.group
        with self.open:
            while True:
                command, *given = group.hear()
                if command == "end":
                    return
                if command in ("draw", "score"):
                    group.collect(self._own(getattr(self, f"_{command}"), *given))
                else:
                    getattr(self, f"_{command}")(*given)

    def _own(self, do: Callable[..., Any], *given: Any) -> Any:
        """What `do` makes of this process' item of a wave; None where it has none."""
        *more, wave = given
        own = wave[self.crew.rank] if self.crew.rank < len(wave) else None
        return None if own is None else attempt(self.crew.rank, lambda: do(own, *more))

    def _adapter(self, state: Mapping[str, torch.Tensor]) -> None:
        """Draw with an adapter of this state from now on."""
        self._rest()
        self.adapter.load(dict(state))
        self.open.enter_context(drawing(self.model, self.adapter))

    def _rest(self) -> None:
        self.open.close()
        for scorer in self.scorers.values():
            if callable(rest := getattr(scorer, "rest", None)):
                rest()

    def _draw(self, members: Sequence[Any], settings: Any, candidates: bool) -> tuple[torch.Tensor, np.ndarray]:
        name = repr((settings, candidates))
        sampler = self.samplers.setdefault(name, BatchSampler(self.model, settings, candidates))
        return sampler.sample_batch(members)

    def _score(self, job: tuple[Sequence[str], np.ndarray, Sequence[str]]) -> list[np.ndarray]:
        names, images, prompts = job
        return [self.scorers[name].score(images, prompts) for name in names]

    def _train(self, job: Mapping[str, Any]) -> None:
        """The leader's training steps, from the state and step that it has."""
        self._rest()
        settings, pairs = job["settings"], job["pairs"]
        with self.model.training(streams(settings)):
            data = received(pairs, self.model.encode_prompts(list(pairs["prompts"])))
            trainer = Trainer(self.model, self.adapter, data, settings, job["seed"], self.crew)
            trainer.load_state(job["state"])
            trainer.level = job["level"]
            try:
                train_steps(trainer, job["first"], list(job["earlier"]))
            except UserError:
                return  # the leader raises the same one
