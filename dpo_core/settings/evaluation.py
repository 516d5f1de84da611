"""Settings of what is measured on held-out prompts, of early stopping, and of the strength sweep."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from .base import Settings, Widget


class EvaluationSettings(Settings):
    """Held-out prompts with the same seeds before and after."""

    seeds_per_prompt: Annotated[int, Widget()] = Field(
        6, ge=1, le=1000, description="Pictures of each held-out prompt, for each model or strength. Unit: images."
    )
    guidance: float | None = Field(None, ge=1.0, le=30.0, description="Guidance scale; empty: that of the candidates.")
    every_round: bool = Field(True, description="Evaluate after every round; false: only the start and the end.")
    bootstrap: int = Field(2000, ge=100, le=100_000, description="Resamples of the bootstrap over prompts.")
    seed: Annotated[int, Widget(advanced=True)] = Field(
        1_000_003,
        ge=0,
        lt=2**31,
        description="Noise seeds of held-out pictures are derived from it, apart from those of candidates.",
    )


class StopSettings(Settings):
    """Which round is kept, and when the loop ends: judged on held-out prompts after every round."""

    rule: Annotated[Literal["best", "last"], Widget("keep", since=2, advanced=True)] = Field(
        "best",
        description="best: keep the round whose gain on held-out prompts has the highest lower confidence bound, or "
        "the original if none is above 0, and stop early on a plateau, a failed guard or divergence. last: run all "
        "rounds, keep the last.",
    )
    patience: Annotated[int, Widget(advanced=True)] = Field(
        3,
        ge=1,
        le=1000,
        description="Rounds in a row without a higher lower confidence bound before the loop ends. Unit: rounds.",
    )
    judge_share: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="The judge's share in the gain, where there is a judge; the rewards have the rest.",
    )
    copy_paste_rise: float = Field(
        0.1,
        ge=0.0,
        le=2.0,
        description="A round whose copy-paste has risen by more than this (lower confidence bound) is not kept.",
    )
    diversity_loss: float = Field(
        0.85,
        gt=0.0,
        le=1.0,
        description="A round that has lost more than this share of the diversity above 1 (lower confidence bound) is "
        "not kept. Wrong pictures are diverse, too, so every good run loses much of it; a run in which every seed "
        "gives one picture loses all.",
    )
    saturation_rise: float = Field(
        0.1,
        ge=0.0,
        le=10.0,
        description="A round whose colours are more saturated by more than this share of the start's saturation (lower "
        "confidence bound) is not kept: a scorer may pay for colour. 10 turns this guard off.",
    )
    quality_fall: float = Field(
        0.4,
        ge=0.0,
        le=20.0,
        description="A round whose quality (PickScore) has fallen by more than this (upper confidence bound) is not "
        "kept. Unit: logits. At 0.4 people are expected to prefer the original's picture in 60 % of comparisons.",
    )


class StrengthSettings(Settings):
    """The strength sweep: the LoRA at several strengths, measured on held-out prompts against the model without it."""

    strengths: Annotated[tuple[float, ...], Widget()] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
        max_length=50,
        description="Strengths to draw with, 0 to 4, two decimals at most; 0, the model without the LoRA, is always "
        "among them.",
    )
    seeds_per_prompt: int | None = Field(
        None,
        ge=2,
        le=1000,
        description="Pictures of each held-out prompt at each strength; empty: as in evaluation, at least 2. Unit: "
        "images.",
    )

    @field_validator("strengths")
    @classmethod
    def _rising(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        """Rising, each once, with 0."""
        if wrong := [s for s in strengths if not 0 <= s <= 4]:
            raise ValueError(f"strength {wrong[0]:g} is outside 0 to 4; a LoRA is mostly used at 0.5 to 1.5")
        if wrong := [s for s in strengths if not math.isclose(s, round(s, 2), abs_tol=1e-9)]:
            raise ValueError(f"strength {wrong[0]!r} has more than two decimals; {wrong[0]:.2f} is near enough")
        if not any(strengths):
            raise ValueError(
                "no strength is above 0, so there is nothing to compare with the original; give some, such as 0.5, 1"
            )
        return tuple(sorted({0.0, *(round(s, 2) for s in strengths)}))
