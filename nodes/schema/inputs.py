"""Inputs that every node has which measures on held-out prompts."""

from __future__ import annotations

from comfy_api.latest import io

from ..sockets import CandidatesType, ScorerType


def judge_input(says: str, **more) -> io.Input:
    """A second witness; `says`: the end of its tooltip."""
    return ScorerType.Input("judge", optional=True, tooltip=f"A scorer of another backbone that {says}", **more)


def seeds_input(tooltip: str, least: int = 2, **more) -> io.Input:
    """Pictures a prompt. With fewer than two there is no spread to count gains in."""
    return io.Int.Input("seeds_per_prompt", default=6, min=least, max=1000, tooltip=tooltip, **more)


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


def picture_inputs(of: str, least: int = 2) -> list:
    """How many held-out pictures are drawn, and from which seed; `of`: the end of the first one's tooltip."""
    return [
        seeds_input(f"Pictures for every held-out prompt{of}", least),
        io.Int.Input(
            "seed",
            control_after_generate=False,
            default=1_000_003,
            min=0,
            max=2**31 - 1,
            tooltip="Noise seeds derive from it, apart from candidates'.",
        ),
    ]
