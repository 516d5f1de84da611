"""Records of candidates with random scores, for the sampling benchmark's tests."""

from __future__ import annotations

import numpy as np

from dreambooth_dpo.benchmarks.sampling.records import DRAFT_STEPS, PER_PROMPT, STEPS_AT, Records
from dreambooth_dpo.dpo_core.settings import PairSettings

COSTS = {"denoise": 0.1, "decode": 0.01, "score": 0.005, "draft_2": 0.02, "draft_3": 0.03, "draft_4": 0.04}
OPEN = PairSettings(rule="angle_window", margin=0.0, max_pairs_per_prompt=100, max_uses=100)
BY_REWARD = OPEN.model_copy(update={"rule": "lambda_harmonic"})


def records(prompts: int = 3, seed: int = 0) -> Records:
    rng, n = np.random.default_rng(seed), prompts * PER_PROMPT
    found = {"prompt": np.repeat(np.arange(prompts), PER_PROMPT), "right": rng.integers(0, 2, n).astype(float)}
    for axis in ("fidelity", "alignment"):
        found[axis] = rng.normal(0, 0.05, n)  # cosines
        looks = [*map(str, STEPS_AT), *(f"draft_{k}" for k in DRAFT_STEPS)]
        found |= {f"{axis}_{look}": found[axis] + rng.normal(0, 0.015, n) for look in looks}
    return found
