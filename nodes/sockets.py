"""The pack's own socket types. They carry handles: small, frozen, with names of what lies in the run folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..dpo_core.concept import Concept
from ..dpo_core.evaluation.stop_rule import Decision, Standing
from ..dpo_core.prompts import PromptSet
from ..dpo_core.settings import PairSettings, SamplingSettings

CATEGORY = "DreamBooth DPO"


def found_by(*words: str) -> dict[str, list[str]]:
    """For io.Schema: further words that find a node in the search, on hosts that have them."""
    return {"search_aliases": list(words)} if "search_aliases" in io.Schema.__dataclass_fields__ else {}


def shown_again() -> dict[str, bool]:
    """For io.Schema of every node that gives `ui`: what it showed is sent again where its result is at hand, on hosts
    that can do so.

    0.3.64 lacks the argument, and sends again what output nodes showed, and no others.
    """
    name = "has_intermediate_output"
    return {name: True} if name in io.Schema.__dataclass_fields__ else {}


ConceptType = io.Custom("DBDPO_CONCEPT")
PromptsType = io.Custom("DBDPO_PROMPTS")
CandidatesType = io.Custom("DBDPO_CANDIDATES")
ScorerType = io.Custom("DBDPO_SCORER")
ScoredType = io.Custom("DBDPO_SCORED")
PairsType = io.Custom("DBDPO_PAIRS")
StandingType = io.Custom("DBDPO_STANDING")


@dataclass(frozen=True)
class Sampler:
    """What was drawn with, beside the settings that the core knows."""

    name: str
    scheduler: str
    negative: str


@dataclass(frozen=True)
class Candidates:
    """A set of candidates in a run folder."""

    folder: Path
    set_name: str
    concept: Concept = field(repr=False)
    prompts: PromptSet = field(repr=False)
    settings: SamplingSettings
    sampler: Sampler
    round: int = 0
    """Of a loop: its number is part of every seed."""


@dataclass(frozen=True)
class Scored:
    """Candidates with the names under which their scores are kept: of each axis those of its scorers."""

    candidates: Candidates
    fidelity: tuple[str, ...]
    alignment: tuple[str, ...]


@dataclass(frozen=True)
class Pairs:
    """Better/worse pairs of scored candidates, kept under `name`."""

    scored: Scored
    name: str
    settings: PairSettings


@dataclass(frozen=True)
class Kept:
    """Rounds measured so far, the decision on them, and what it gives out.

    `start` names what they were measured against, and how.
    """

    start: str
    standings: tuple[Standing, ...]
    decision: Decision
    lines: tuple[str, ...]
    """What was measured of each round, in words."""
    model: Any = field(repr=False)
    lora: Any = field(repr=False)
    candidates: Candidates = field(repr=False)
    """Those of the last round that ran."""
    curves: Any = field(repr=False)
    """Training curves of the last round that ran (PIL)."""
