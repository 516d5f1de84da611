"""A run that is interrupted in training and resumed, beside the same run without an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest
from loops import adapters, difference, make_loop, outcome

from dreambooth_dpo.dpo_core.loop.rounds import Loop
from dreambooth_dpo.dpo_core.settings import LoopSettings


def resumes_bit_for_bit(folder: Path, settings: LoopSettings, at: str = "train round_1", after: int = 4) -> Loop:
    """The whole run's loop, when one that is interrupted in the stage `at` `after` steps has ended with its numbers."""
    whole = make_loop(folder / "whole", settings=settings)
    whole.go()

    def interrupt(stage: str, done: int, *_, **__) -> None:
        if stage == at and done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_loop(folder / "broken", settings=settings, progress=interrupt).go()
    resumed = make_loop(folder / "broken", settings=settings)
    resumed.go()
    assert outcome(resumed.run) == outcome(whole.run)
    assert all(difference(a, b) == 0 for a, b in zip(adapters(resumed.run), adapters(whole.run), strict=True))
    return whole
