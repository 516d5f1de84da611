"""Inputs shared by the nodes that measure on held-out prompts."""

from __future__ import annotations

from comfy_api.latest import io

from ...dpo_core.settings import EvaluationSettings
from ..sockets import CandidatesType, ScorerType
from ..widgets import widget


def judge_input(says: str, **more) -> io.Input:
    """The optional judge; `says` is the end of its tooltip."""
    return ScorerType.Input("judge", optional=True, tooltip=f"A scorer of another backbone that {says}", **more)


def quality_input(**more) -> io.Input:
    """The optional model of the quality guard."""
    return ScorerType.Input(
        "quality",
        optional=True,
        tooltip="PickScore, or another CLIP trained on people's preferences: a guard that only measures. A clear fall "
        "of the pictures' quality is reported.",
        **more,
    )


def seeds_input(least: int = 2, **more) -> io.Input:
    """Pictures per held-out prompt; gains in standard deviations need at least 2."""
    return widget(EvaluationSettings, "seeds_per_prompt", min=least, **more)


def scoring_inputs(says: str, **more) -> list:
    """The candidates, the reward scorer and the judge.

    says: end of the judge's tooltip. more: arguments of the candidates' input.
    """
    return [
        CandidatesType.Input(
            "candidates",
            tooltip="The run's candidates: they carry concept, held-out prompts, sampler settings and run folder.",
            **more,
        ),
        ScorerType.Input("scorer", tooltip="The reward scorer: the one whose scores were trained on."),
        judge_input(f"was not used in training: {says}"),
    ]


def picture_inputs(least: int = 2) -> list[io.Input]:
    """How many held-out pictures are drawn, and from which seed."""
    return [seeds_input(least), widget(EvaluationSettings, "seed")]
