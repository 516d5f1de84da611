"""Nodes that judge by an interval refuse a single held-out prompt before they draw anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.prompts import PromptSet
from dreambooth_dpo.dpo_core.settings import SamplingSettings

pytestmark = pytest.mark.usefixtures("comfyui")


def candidates(held_out: tuple[str, ...], folder: Path):
    from dreambooth_dpo.nodes.sockets import Candidates, Sampler

    concept = Concept("sks", "robot", np.zeros((1, 8, 8, 3), np.uint8))
    prompts = PromptSet(("a sks robot",), held_out)
    return Candidates(folder, "round_0", concept, prompts, SamplingSettings(), Sampler("euler", "normal", ""))


@pytest.mark.parametrize(("held_out", "seeds", "said"), [
    (("b sks robot",), 6, "only 1 held-out prompt"),
    (("b sks robot", "c sks robot"), 1, "seeds_per_prompt is 1"),
])  # fmt: skip
def test_keep_best_round_and_strength_sweep(tmp_path, held_out, seeds, said):
    """Neither MODEL nor LoRA is looked at: the inputs are refused by their counts, in a folder that stays empty."""
    from dreambooth_dpo.nodes.stages.keep_best import keep_best
    from dreambooth_dpo.nodes.stages.strength import strength_sweep

    found = candidates(held_out, tmp_path / "run")
    with pytest.raises(UserError, match=f"Keep Best Round .*{said}"):
        keep_best((None, None), None, None, None, found, (None, None, None, None), (seeds, 0), 3, None, None)
    with pytest.raises(UserError, match=f"Strength Sweep .*{said}"):
        strength_sweep((None, None, None), {}, found, found.settings, (None, None), "0, 1", seeds, None)
    assert not (tmp_path / "run").exists()
