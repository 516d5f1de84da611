"""Settings of the start and of the whole loop."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from .base import Settings, Widget
from .evaluation import EvaluationSettings, StopSettings, StrengthSettings
from .pairs import LEAST_VARIED, PairSettings
from .sampling import SamplingSettings
from .training import AdapterSettings, TrainSettings


def too_few_to_vary(diversity: float, candidates: int) -> str:
    """Why `diversity` would do nothing with so many candidates of a prompt; "" where it does."""
    if not diversity or candidates >= LEAST_VARIED:
        return ""
    return (
        f"diversity {diversity:g} needs {LEAST_VARIED} candidates of a prompt or more, and candidates_per_prompt is "
        f"{candidates}: the better half must be three, as two are equally different. Set candidates_per_prompt to "
        f"{LEAST_VARIED} or more, or diversity to 0."
    )


class PersonalizeSettings(Settings):
    """DreamBooth by LoRA (arXiv 2208.12242), without prior loss: the step before, and the curve to beat."""

    steps: int = Field(240, ge=1, le=100_000, description="Optimizer steps of the start. Unit: steps.")
    batch_size: int = Field(8, ge=1, le=256, description="Pictures per step. Unit: images.")
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0, description="Learning rate of AdamW.")
    rank: int = Field(8, ge=1, le=512, description="Rank of the DreamBooth LoRA.")
    curve: tuple[int, ...] = Field(
        (0, 60, 120, 240), description="Steps at which the trade-off curve is measured; may go beyond the start."
    )
    min_fidelity_gain: float = Field(
        0.6,
        ge=0.0,
        le=1.0,
        description="Under-fitted start: training goes on while fidelity has risen by less than this share of the way "
        "to held-out photos.",
    )
    max_steps: int = Field(
        480, ge=1, le=100_000, description="Where training on an under-fitted start ends. Unit: steps."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of initial weights and draws.")


class LoopSettings(Settings):
    """All that shapes the loop."""

    rounds: Annotated[int, Widget(most=50)] = Field(
        3,
        ge=1,
        le=1000,
        description="Most rounds of sample, score, pair and train; early stopping may end them sooner. Unit: rounds.",
    )
    prompt_parts: int = Field(
        1,
        ge=1,
        le=100,
        description="Parts that the training prompts are split into; round r draws candidates for part r modulo this. "
        "1: every round draws for all prompts. Unit: parts.",
    )
    sampling: SamplingSettings = SamplingSettings()
    pairs: PairSettings = PairSettings()
    adapter: AdapterSettings = AdapterSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    stop: StopSettings = StopSettings()
    sweep: bool = Field(
        False, description="At the end, try the LoRA at several strengths and recommend one: see strength."
    )
    strength: StrengthSettings = StrengthSettings()

    @model_validator(mode="after")
    def _varied(self) -> LoopSettings:
        if refused := too_few_to_vary(self.pairs.diversity, self.sampling.candidates_per_prompt):
            raise ValueError(refused.rstrip("."))
        if self.pairs.diversity and (self.train.objective == "reward_gap" or self.train.margin_weight):
            name = "margin_weight" if self.train.margin_weight else "objective reward_gap"
            raise ValueError(
                f"{name} does not go with diversity {self.pairs.diversity:g}: it learns from the difference of the "
                "scores, which a pair that was chosen for variety may lack. Set diversity to 0, or take another "
                "objective"
            )
        return self
