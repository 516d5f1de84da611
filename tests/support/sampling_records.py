"""Fake records of sampling with random scores, in the form that benchmarks/sampling.py reads."""

from __future__ import annotations

import numpy as np

from dreambooth_dpo.benchmarks import sampling_pairs
from dreambooth_dpo.benchmarks.sampling_ways import PER_PROMPT, Records

COSTS = {"denoise": 0.1, "decode": 0.01, "score": 0.005, "draft_2": 0.02, "draft_3": 0.03, "draft_4": 0.04}


def records(prompts: int = 3, seed: int = 0) -> Records:
    rng, n = np.random.default_rng(seed), prompts * PER_PROMPT
    found = {"prompt": np.repeat(np.arange(prompts), PER_PROMPT), "right": rng.integers(0, 2, n).astype(float)}
    for axis in ("fidelity", "alignment"):
        found[axis] = rng.normal(0, 0.05, n)  # cosines
        looks = [*map(str, sampling_pairs.STEPS_AT), *(f"draft_{k}" for k in sampling_pairs.DRAFT_STEPS)]
        found |= {f"{axis}_{look}": found[axis] + rng.normal(0, 0.015, n) for look in looks}
    return found
