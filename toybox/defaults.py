"""Default settings of the toybox, chosen on concepts 0..4 only."""

from __future__ import annotations

from ..dpo_core.settings import (
    AdapterSettings,
    EvaluationSettings,
    LoopSettings,
    PairSettings,
    PersonalizeSettings,
    SamplingSettings,
    TrainSettings,
)

TOY_SETTINGS = LoopSettings(
    rounds=3,
    sampling=SamplingSettings(
        candidates_per_prompt=30, steps=12, candidate_steps=4, guidance=1.0, width=64, height=64, batch_size=32
    ),
    pairs=PairSettings(max_pairs_per_prompt=6, max_uses=3, diversity=0.5),
    adapter=AdapterSettings(rank=8, alpha=8.0, targets="all"),
    train=TrainSettings(steps=60, batch_size=8, learning_rate=8e-4, beta=2000.0, loser_guard=0.6),
    evaluation=EvaluationSettings(seeds_per_prompt=6),
)
TOY_PERSONALIZE = PersonalizeSettings(steps=120, learning_rate=2e-3, curve=(0, 60, 120, 240), max_steps=480)
EPOCHS, EPOCH_STEPS = 12, 480
"""Saved points of a personalization, and its training steps: the last points copy the photos."""
