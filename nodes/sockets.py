"""The pack's own socket types: small frozen handles that name data in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..dpo_core.concept import Concept
from ..dpo_core.evaluation.stop_rule import Decision, Standing
from ..dpo_core.prompts import PromptSet
from ..dpo_core.settings import PairSettings, SamplingSettings

CATEGORY = "DreamBooth DPO"
AUTO = "auto"
"""Option of a combo widget: as usual for the model's family."""
NONE = "none"
"""Option of a combo widget: nothing."""
QUESTIONS = "questions to clip"
"""Option of Load Scorer: a language model of the host that is asked about the pictures."""


def found_by(*words: str) -> dict[str, list[str]]:
    """Arguments of io.Schema: further search words of a node, on hosts that support them."""
    return {"search_aliases": list(words)} if "search_aliases" in io.Schema.__dataclass_fields__ else {}


def shown_again() -> dict[str, bool]:
    """Arguments of io.Schema for nodes that return `ui`: the host sends it again when the result is cached.

    ComfyUI 0.3.64 lacks the argument and does so for output nodes only.
    """
    name = "has_intermediate_output"
    return {name: True} if name in io.Schema.__dataclass_fields__ else {}


class _Anything(str):
    """The type that every input takes. Hosts before 0.33 (0.3.64) compare an output's type by `!=` alone."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False


ListedType = io.Custom(_Anything("*"))
"""A value of another node's list of options, such as a LoRA of Load LoRA: hosts take no text for it."""
ConceptType = io.Custom("DBDPO_CONCEPT")
PromptsType = io.Custom("DBDPO_PROMPTS")
CandidatesType = io.Custom("DBDPO_CANDIDATES")
ScorerType = io.Custom("DBDPO_SCORER")
ScoredType = io.Custom("DBDPO_SCORED")
PairsType = io.Custom("DBDPO_PAIRS")
StandingType = io.Custom("DBDPO_STANDING")


@dataclass(frozen=True)
class Sampler:
    """Sampling settings that only ComfyUI has."""

    name: str
    scheduler: str
    negative: str


@dataclass(frozen=True)
class Candidates:
    """A set of candidates in a run folder, and what they were drawn with."""

    folder: Path
    set_name: str
    concept: Concept = field(repr=False)
    prompts: PromptSet = field(repr=False)
    settings: SamplingSettings
    sampler: Sampler
    round: int = 0
    """Index of the round in a loop, from 0. It is part of every seed."""
    earlier: Candidates | None = field(default=None, repr=False)
    """The candidates of the round before, where they are given."""


@dataclass(frozen=True)
class Scored:
    """Scored candidates: the names of the scorers of each axis."""

    candidates: Candidates
    fidelity: tuple[str, ...]
    alignment: tuple[str, ...]


@dataclass(frozen=True)
class Pairs:
    """Pairs of scored candidates, stored in the run folder under `name`."""

    scored: Scored
    name: str
    settings: PairSettings


@dataclass(frozen=True)
class RoundMade:
    """What one measured round stored in the run folder: names of its sets, pairs and training, and its mean scores."""

    evaluation: str
    candidates: str = ""
    pairs: str = ""
    training: str = ""
    fidelity: float = 0.0
    alignment: float = 0.0


@dataclass(frozen=True)
class Kept:
    """The rounds measured so far, the decision on them, and the outputs that follow from it.

    start: hash of the original model, the settings and the scorers; rounds of another start cannot be compared.
    """

    start: str
    standings: tuple[Standing, ...]
    decision: Decision
    lines: tuple[str, ...]
    """Lines of the report: a heading, then one for each round."""
    model: Any = field(repr=False)
    lora: Any = field(repr=False)
    candidates: Candidates = field(repr=False)
    """Candidates of the last round that ran."""
    curves: Any = field(repr=False)
    """Training curves of the last round that ran (PIL)."""
    made: tuple[RoundMade, ...] = ()
    """The start and the rounds measured so far; the start has an evaluation alone."""
    gains: tuple[Mapping[str, dict], ...] = ()
    """Of each round, every score's gain as JSON with its verdict, by the scorer's name."""
