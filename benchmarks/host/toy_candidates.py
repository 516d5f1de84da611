"""The candidates that both heavy nodes of the host benchmark work on: two prompts of a toybox concept."""

from __future__ import annotations

from pathlib import Path

from ...dpo_core.prompts import PromptSet
from ...dpo_core.settings import SamplingSettings
from ...nodes.sockets import Candidates, Sampler
from ...nodes.stages.sample import draw_candidates
from ...toybox.concepts import concept_from_seed
from ..common.in_comfyui import Quiet

CONCEPT = concept_from_seed(0).to_concept()
PROMPTS = tuple(f"a photo of a {CONCEPT.subject} {place}" for place in ("on grass", "in snow"))


def draw(folder: Path, toybox: tuple, each: int, steps: int, **more: object) -> Candidates:
    """`each` candidates per prompt in a run folder, by the stage of Sample Candidates. toybox: (MODEL, CLIP, VAE)."""
    settings = SamplingSettings(candidates_per_prompt=each, steps=steps, guidance=1.0, width=64, height=64, **more)
    sampler = Sampler("dpmpp_2m", "normal", "")
    empty = Candidates(folder, "", CONCEPT, PromptSet(PROMPTS, ("a sks",)), settings, sampler)
    return draw_candidates(*toybox, empty, Quiet())[0]
