"""Builds the scorers of one concept: rewards, judge scorers and guards."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .backgrounds import BackgroundScorer, shows_place
from .embedders import Embedder, innermost
from .errors import MetricsError
from .guards import CopyPasteScorer, DiversityScorer
from .patches import fidelity_scorer
from .scorers import AlignmentScorer

ROLES = {
    "fidelity": ("reward", "Fidelity", True),
    "alignment": ("reward", "Alignment", True),
    "judge_fidelity": ("judge", "Fidelity (judge)", True),
    "judge_alignment": ("judge", "Alignment (judge)", True),
    "copy_paste": ("guard", "Copy-paste", False),
    "judge_background": ("guard", "Likeness to the photos' place (judge)", False),
    "background": ("guard", "Likeness to the photos' place (reward)", False),
    "diversity": ("guard", "Diversity within a prompt (Vendi)", True),
}
"""Role, title, and whether higher is better, by scorer name. For further rewards of an axis see `role_of`."""
_FURTHER = re.compile(r"(fidelity|alignment)_([2-9]|[1-9][0-9]+)")


def role_of(name: str) -> tuple[str, str, bool] | None:
    """Role, title, and whether higher is better of a scorer, also of "fidelity_2", ...; None for unknown names."""
    if further := _FURTHER.fullmatch(name):
        role, title, higher = ROLES[further[1]]
        return role, f"{title} ({_ordinal(int(further[2]))} scorer)", higher
    return ROLES.get(name)


def _ordinal(number: int) -> str:
    """2nd, 3rd, 4th, 11th, 22nd."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


@dataclass(frozen=True)
class Scorers:
    """Rewards are trained on; judges only measure."""

    rewards: list[Any]
    judges: list[Any]
    doubts: tuple[str, ...] = ()
    """What a user should know of the choice of scorers, in sentences."""


def reward_scorers(rewards: Embedder | Sequence[Embedder], concept: Any) -> list[Any]:
    """Fidelity and alignment scorers of one or several embedders: "fidelity", "alignment", "fidelity_2", ...

    The first embedder must have a text tower; a further one without (DINOv2) adds a fidelity scorer only. concept: as
    for `concept_scorers`. Raises MetricsError for no embedder, a duplicate, or a first one without a text tower.
    """
    embedders = list(rewards) if isinstance(rewards, Sequence) else [rewards]
    if not embedders:
        raise MetricsError("there is no reward scorer: name at least one open_clip model.")
    marks = [embedder.fingerprint for embedder in embedders]
    if twice := [e for i, e in enumerate(embedders) if e.fingerprint in marks[:i]]:
        raise MetricsError(
            f"the scorer {twice[0].name} is given twice as a reward, which adds nothing: choose another model, or "
            "leave it out."
        )
    found: list[Any] = []
    for number, embedder in enumerate(embedders, 1):
        more = "" if number == 1 else f"_{number}"
        found.append(fidelity_scorer(embedder, concept.references, f"fidelity{more}", concept.masks))
        if number == 1 or embedder.embed_texts([]) is not None:
            found.append(AlignmentScorer(embedder, concept.without_identifier, f"alignment{more}", concept.identifier))
    return found


def judge_doubts(rewards: Sequence[Any], judge: Any) -> tuple[str, ...]:
    """What is said of a judge that is too near to a reward: other weights of the same architecture.

    Raises MetricsError for a judge with a reward's own weights, whatever its folder: it measures nothing new.
    """
    found, measured = [], innermost(judge)
    for reward in map(innermost, rewards):
        own, other = (getattr(e, "weights", e.fingerprint) for e in (reward, measured))
        if own == other:
            raise MetricsError(
                f"the judge ({judge.name}) has the same weights as the reward scorer ({reward.name}), so it would show "
                "what was trained on as if it were an independent measure. Choose a judge of another model, or leave "
                "the judge out."
            )
        if getattr(reward, "architecture", 0) == getattr(measured, "architecture", 1):
            found.append(
                f"The judge ({judge.name}) has the architecture of the reward scorer ({reward.name}) with other "
                "weights: it may be fooled by the same pictures. A judge of another architecture, such as DINOv2, says "
                "more."
            )
    return tuple(found)


def concept_scorers(reward: Embedder | Sequence[Embedder], judge: Embedder | None, concept: Any) -> Scorers:
    """The rewards, judge scorers and guards of one concept.

    reward: one embedder, or several that share the axes, see `reward_scorers`. judge: scores fidelity, and alignment if
    it has a text tower. Guards use the judge, else the first reward embedder. concept: references, masks, held_out,
    identifier and without_identifier of a subject. With held-out photos there is a copy-paste guard; with masks, where
    a photo shows any background, a background guard, named "judge_background" or, without a judge, "background". Raises
    MetricsError for what a scorer cannot do.
    """
    rewards = reward_scorers(reward, concept)
    judges: list[Any] = []
    doubts: tuple[str, ...] = ()
    if judge is not None:
        doubts = judge_doubts(reward if isinstance(reward, Sequence) else [reward], judge)
        judges.append(fidelity_scorer(judge, concept.references, "judge_fidelity", concept.masks))
        if judge.embed_texts([]) is not None:
            judges.append(AlignmentScorer(judge, concept.without_identifier, "judge_alignment", concept.identifier))
    guard_embedder = judge or (reward[0] if isinstance(reward, Sequence) else reward)
    if concept.held_out is not None:
        judges.append(CopyPasteScorer(guard_embedder, concept.held_out, concept.references))
    if concept.masks is not None and shows_place(concept.masks).any():
        judges.append(
            BackgroundScorer(
                guard_embedder, concept.references, concept.masks, "background" if judge is None else "judge_background"
            )
        )
    return Scorers(rewards, [*judges, DiversityScorer(guard_embedder)], doubts)


def about_scorers(loop: Any, titles: Mapping[str, str] | None = None) -> dict[str, tuple[str, str, bool]]:
    """Role, title, and whether higher is better, of all scorers of a loop (`rewards`, `judges`), by name.

    `titles`: titles of the oracle scorers, by name.
    """
    scorers = [*loop.rewards, *loop.judges]
    return {s.name: role_of(s.name) or ("oracle", (titles or {}).get(s.name, s.name), True) for s in scorers}
