"""Inputs that every node has which measures on held-out prompts."""

from __future__ import annotations

from comfy_api.latest import io

from ...dpo_core.settings import EvaluationSettings
from ..sockets import CandidatesType, ScorerType
from ..widgets import widget


def judge_input(says: str, **more) -> io.Input:
    """A second witness; `says`: the end of its tooltip."""
    return ScorerType.Input("judge", optional=True, tooltip=f"A scorer of another backbone that {says}", **more)


def seeds_input(least: int = 2, **more) -> io.Input:
    """Pictures a prompt. With fewer than two there is no spread to count gains in."""
    return widget(EvaluationSettings, "seeds_per_prompt", min=least, **more)


def witness_inputs(says: str, **more) -> list:
    """What is measured and by whom: candidates (`more`: for their socket), the scorer that trained, the judge (`says`:
    see there).
    """
    return [
        CandidatesType.Input(
            "candidates", tooltip="Tells concept, held-out prompts, sampler settings and run folder.", **more
        ),
        ScorerType.Input("scorer", tooltip="The scorer that trained."),
        judge_input(f"never trained: {says}"),
    ]


def picture_inputs(least: int = 2) -> list[io.Input]:
    """How many held-out pictures are drawn, and from which seed."""
    return [seeds_input(least), widget(EvaluationSettings, "seed")]
