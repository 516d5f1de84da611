"""Some candidates of the round before, chosen by their denoising error.

The engine takes all of them (`sampling.earlier_rounds`): to choose among them is here to be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...dpo_core.loop.rounds import Loop
from ...dpo_core.records import Candidate
from ...dpo_core.scoring.sets import score_set
from ...dpo_core.seeds import derive_seed
from ...dpo_core.training.adapter import drawing

DRAWS = 2
"""Draws of (t, noise) by which an old candidate's denoising error is compared."""


@dataclass(frozen=True)
class ReusingLoop(Loop):
    """Fresh candidates and, beside them, some of the round before: those whose denoising error changed least since.

    An old candidate counts as drawn by the present policy where its error is that of the policy that drew it: the
    errors' difference estimates log p_then - log p_now (as in Diffusion-DPO, arXiv 2311.12908), of which importance
    weights are made. kept: how many of each prompt's are taken.
    """

    kept: int = 5

    def candidates(self, round_index: int) -> None:
        """As Loop's; the old ones join the set before it is scored."""
        name = f"round_{round_index}"
        if not round_index:
            super().candidates(round_index)
            return
        sampling = self.settings.sampling.of_candidates()
        fresh = sampling.candidates_per_prompt * len(self.prompts_of(round_index))
        if len(self.run.candidates(name)) <= fresh:
            self._draw(name, sampling, round_index)
            self._take_over(round_index, name)
        score_set(self.run, name, self.rewards, self.progress, self.crew)

    def _take_over(self, round_index: int, name: str) -> None:
        """Add the old candidates to a drawn set, as its last batch."""
        earlier, fresh = f"round_{round_index - 1}", self.run.candidates(name)
        old = self.run.candidates(earlier)
        drawn = [c for c in old if c.position < len(fresh)]  # not those that were themselves taken over
        changed = self._changes(round_index, earlier, drawn)
        taken = nearest(drawn, changed, self.kept)
        chunk = max(c.chunk for c in fresh) + 1
        added = [replace(c, position=len(fresh) + i, chunk=chunk, row=i) for i, c in enumerate(taken)]
        places = [c.position for c in taken]
        latents, images = self.run.latents(earlier)[places], self.run.images(earlier, places)
        self.run.add_chunk(name, added, latents, images)
        self.run.set_fact(f"reused_{name}", {"positions": places, "changes": [float(v) for v in changed]})

    def _changes(self, round_index: int, earlier: str, members: Sequence[Candidate]) -> np.ndarray:
        """|error now - error then| of candidates, mean over draws, float [n]."""
        latents, errors = self.run.latents(earlier)[[c.position for c in members]], []
        for number in (round_index - 1, round_index):
            self.adapter.load(self.run.load_state(f"adapter_{number}")[0])
            with drawing(self.model, self.adapter), torch.no_grad():
                errors.append(self._errors(latents, members))
        return (errors[1] - errors[0]).abs().numpy()

    def _errors(self, latents: torch.Tensor, members: Sequence[Candidate]) -> torch.Tensor:
        """Mean squared error of the prediction, over the same draws of (t, noise) for every adapter: float [n]."""
        total = torch.zeros(len(members))
        for first in range(0, len(members), 32):
            rows = slice(first, first + 32)
            cond = self.model.encode_prompts([c.prompt for c in members[rows]])
            for draw in range(DRAWS):
                generator = torch.Generator().manual_seed(derive_seed(0, draw, first))
                noise = torch.randn(latents[rows].shape, generator=generator)
                times = self.model.draw_timesteps(len(noise), generator)
                noised, target = self.model.noised(latents[rows], noise, times)
                total[rows] += (self.model.predict(noised, times, cond) - target).square().flatten(1).mean(1) / DRAWS
        return total


def nearest(members: Sequence[Candidate], changes: np.ndarray, count: int) -> list[Candidate]:
    """The `count` candidates of each prompt whose change is least, in their order."""
    chosen: list[int] = []
    for prompt in sorted({c.prompt_index for c in members}):
        of = [i for i, c in enumerate(members) if c.prompt_index == prompt]
        chosen += sorted(sorted(of, key=lambda i: (changes[i], i))[:count])
    return [members[i] for i in chosen]
