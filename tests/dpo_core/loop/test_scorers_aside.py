"""Tests that scorers and the model never occupy an accelerator at the same time in the loop."""

from __future__ import annotations

from pathlib import Path

from loops import FakeModel, Mean, changed, make_loop

from dreambooth_dpo.dpo_core.loop.rounds import Loop


def test_scorers_leave_the_accelerator_before_the_model_draws_or_trains(tmp_path: Path) -> None:
    """Also with drafts: the model needs the memory that scorers would hold."""
    awake: set[str] = set()
    worked: list[str] = []

    class Resting(Mean):
        def rest(self) -> None:
            awake.discard(self.name)

        def score(self, images, prompts):
            awake.add(self.name)
            worked.append(self.name)
            return super().score(images, prompts)

    class Alone(FakeModel):
        def sample(self, *args, **more):
            assert not awake
            worked.append("draw")
            return super().sample(*args, **more)

        def training(self, stream=False):
            assert not awake
            worked.append("train")
            return super().training(stream)

    loop = make_loop(tmp_path, Alone(), changed(rounds=1, sampling={"steps": 4, "draft_steps": 2}))
    rewards = [Resting("fidelity", 0), Resting("alignment", 1)]
    Loop(loop.run, loop.model, loop.adapter, loop.prompts, rewards, [Resting("judge", 2)], loop.settings).go()
    assert worked.count("train") == 1 and {"draw", "fidelity", "alignment", "judge"} <= set(worked)
