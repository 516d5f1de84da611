"""A process that does not lead draws as the leader tells it."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from loops import PROMPTS, FakeModel, changed

from dreambooth_dpo.dpo_core.crew import ALONE
from dreambooth_dpo.dpo_core.processes.worker import Worker
from dreambooth_dpo.dpo_core.sampling.sets import plan
from dreambooth_dpo.dpo_core.training.adapter import Adapter


def test_candidates_are_drawn_with_their_lora_and_held_out_pictures_without() -> None:
    class Shifted(FakeModel):
        shift = 0.0

        @contextmanager
        def for_candidates(self):
            self.shift = 1.0
            yield
            self.shift = 0.0

        def sample(self, prompts, seeds, settings, on_step=None):
            return super().sample(prompts, seeds, settings) + self.shift

    model, settings = Shifted(), changed()
    worker = Worker(ALONE, model, Adapter(model.denoiser, settings.adapter), [])
    members = plan(PROMPTS.train[:1], 2, 0, 0, 2)
    held_out, candidates = (worker._draw(members, settings.sampling, given)[0] for given in (False, True))
    assert torch.allclose(candidates, held_out + 1.0)
    assert torch.equal(worker._draw(members, settings.sampling, False)[0], held_out)
