"""Settings of the pair rule."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Settings, Widget

_WINDOW = (("rule", ("angle_window",)),)
"""Widget.used_with of what shapes the angle window."""

LEAST_VARIED = 5
"""Candidates of a prompt whose better half has three: of two, neither adds more to the variety than the other."""


class PairSettings(Settings):
    """Which two candidates of a prompt become a better/worse pair (arXiv 2505.20975, section 3)."""

    rule: Annotated[
        Literal["angle_window", "pareto", "lambda_harmonic", "weighted_sum", "random"],
        Widget(since=1, before="angle_window"),
    ] = Field(
        "lambda_harmonic",
        description="Which of two candidates is better. lambda_harmonic: a reward of both scores in which the lower "
        "one weighs more (arXiv 2407.12164). angle_window: the improvement's angle lies in the window. pareto: first "
        "over last Pareto front (arXiv 2502.02588). weighted_sum: of both scores. random: a control.",
    )
    window: Annotated[Literal["fixed", "auto"], Widget(since=1, used_with=_WINDOW)] = Field(
        "fixed",
        description="For angle_window. fixed: from angle_low to angle_high. auto: chosen each round around the "
        "direction of steer, wide enough to give the pairs that are wanted.",
    )
    steer: Annotated[float, Widget(since=1, step=0.05, used_with=(*_WINDOW, ("window", ("auto",))))] = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Direction of an auto window. 0: fidelity (10 degrees), 0.5: both (45), 1: alignment (80).",
    )
    angle_low: Annotated[float, Widget(used_with=(*_WINDOW, ("window", ("fixed",))))] = Field(
        20.0,
        ge=-90.0,
        le=180.0,
        description="For angle_window: smallest angle. 0 is a gain in fidelity alone, 90 in alignment alone; below 0 "
        "alignment may get worse. Unit: degrees.",
    )
    angle_high: Annotated[float, Widget(used_with=(*_WINDOW, ("window", ("fixed",))))] = Field(
        70.0,
        ge=-90.0,
        le=180.0,
        description="For angle_window: largest angle; above 90 fidelity may get worse. The paper's window is 20 to 70. "
        "Unit: degrees.",
    )
    margin: Annotated[float, Widget(step=0.05, advanced=True)] = Field(
        0.5,
        ge=0.0,
        le=10.0,
        description="Smallest improvement that counts: the length of the difference, in standard deviations of the "
        "round. Higher gives fewer and clearer pairs. Unit: standard deviations.",
    )
    max_pairs_per_prompt: Annotated[int, Widget(default=6, advanced=True)] = Field(
        4, ge=1, le=10000, description="Most pairs of one prompt; the largest improvements are kept. Unit: pairs."
    )
    max_uses: Annotated[int, Widget(default=3, advanced=True)] = Field(
        2, ge=1, le=10000, description="In how many pairs of a round one candidate may be. Unit: pairs."
    )
    min_pairs: int = Field(
        48,
        ge=0,
        le=1_000_000,
        description="Pairs wanted in a round. An auto window widens until it has them; with fewer a warning is given. "
        "Unit: pairs.",
    )
    fidelity_weight: Annotated[
        float, Widget(since=1, step=0.05, used_with=(("rule", ("lambda_harmonic", "weighted_sum")),))
    ] = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="For lambda_harmonic (its lambda) and weighted_sum: the share of fidelity; alignment has the rest.",
    )
    combine: Annotated[Literal["worst", "mean"], Widget(since=2, before="mean", advanced=True)] = Field(
        "worst",
        description="Several scorers on an axis, each in standard deviations of the round. worst: the lowest of their "
        "scores counts, so that all must agree; mean: their mean.",
    )
    matched: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="Keeps variety: only this share of a prompt's possible pairs may be pairs, those whose two latents "
        "are nearest in composition (their low frequencies), so that winner and loser differ in what is scored rather "
        "than in pose. Empty: off.",
    )
    diversity: Annotated[
        float,
        Widget(
            since=13, step=0.05, advanced=True, used_with=(("rule", ("lambda_harmonic", "weighted_sum")),), alone=True
        ),
    ] = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="Keeps variety: weight, in the reward, of how much a candidate's composition differs from the "
        "others in the better half of its prompt's candidates (after arXiv 2504.15217). 0.5 is usual. For "
        f"lambda_harmonic and weighted_sum, with {LEAST_VARIED} candidates of a prompt or more. 0: off.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Rule random: order and direction of pairs are derived from it.")

    @model_validator(mode="after")
    def _ordered(self) -> PairSettings:
        if self.angle_low >= self.angle_high:
            raise ValueError(
                f"angle_low {self.angle_low} must be below angle_high {self.angle_high}; the paper's window is 20..70"
            )
        return self

    @model_validator(mode="after")
    def _has_a_reward(self) -> PairSettings:
        if self.diversity and self.rule not in ("lambda_harmonic", "weighted_sum"):
            raise ValueError(
                f"diversity {self.diversity:g} does not go with rule {self.rule}: it is added to a reward, which this "
                "rule does not have. Set diversity to 0, or take lambda_harmonic or weighted_sum"
            )
        return self

    @property
    def looks_at_latents(self) -> bool:
        """Whether the rule needs the candidates' composition."""
        return self.matched is not None or self.diversity > 0

    def described(self) -> dict[str, Any]:
        """As JSON, to recognise pairs of equal settings; settings that came later only where they are not off."""
        off = {name for name, value in {"matched": None, "diversity": 0.0}.items() if getattr(self, name) == value}
        return self.model_dump(exclude=off)


class OwnPairSettings(Settings):
    """A person's own pairs, beside those of the pair rule."""

    prompt: str = Field("", description="The prompt of own pairs that have none of their own (folders without .txt).")
    weight: Annotated[float, Widget(step=0.25, advanced=True)] = Field(
        1.0,
        ge=0.01,
        le=100.0,
        description="How often training visits one of your pairs for each visit of an automatic pair. Unit: visits.",
    )
