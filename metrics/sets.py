"""The scorers of one concept, put together: two rewards, what the judge says of the same, and the guards."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .backgrounds import BackgroundScorer, shows_place
from .embedders import Embedder
from .errors import MetricsError
from .guards import CopyPasteScorer, DiversityScorer
from .scorers import AlignmentScorer, FidelityScorer

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
"""Of each scorer: its role, its title, and whether higher is better. Further rewards of an axis: see `role_of`."""
_FURTHER = re.compile(r"(fidelity|alignment)_([2-9]|[1-9][0-9]+)")


def role_of(name: str) -> tuple[str, str, bool] | None:
    """Role, title, and whether higher is better, also of "fidelity_2", "alignment_3", ...; None for a name that is not
    known here.
    """
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
    """Rewards train; judges only measure."""

    rewards: list[Any]
    judges: list[Any]


def reward_scorers(rewards: Embedder | Sequence[Embedder], concept: Any) -> list[Any]:
    """Fidelity and alignment by one embedder or several: "fidelity", "alignment", "fidelity_2", "alignment_2", ...

    The first must read text; a further one without a text tower (DINOv2) adds to fidelity alone. concept: as for
    `concept_scorers`. Raises MetricsError for no embedder, one that stands twice, or a first one without a text tower.
    """
    embedders = list(rewards) if isinstance(rewards, Sequence) else [rewards]
    if not embedders:
        raise MetricsError("there is no reward scorer: name at least one open_clip model.")
    marks = [embedder.fingerprint for embedder in embedders]
    if twice := [e for i, e in enumerate(embedders) if e.fingerprint in marks[:i]]:
        raise MetricsError(
            f"the scorer {twice[0].name} stands twice among the rewards, which adds nothing: choose another model, or leave it out."
        )
    found: list[Any] = []
    for number, embedder in enumerate(embedders, 1):
        more = "" if number == 1 else f"_{number}"
        found.append(FidelityScorer(embedder, concept.references, f"fidelity{more}", concept.masks))
        if number == 1 or embedder.embed_texts([]) is not None:
            found.append(AlignmentScorer(embedder, concept.without_identifier, f"alignment{more}", concept.identifier))
    return found


def concept_scorers(reward: Embedder | Sequence[Embedder], judge: Embedder | None, concept: Any) -> Scorers:
    """Fidelity and alignment by `reward`, the same by `judge` if given (alignment if it reads text); guards by the
    judge, else reward.

    reward: one embedder, or several that share the axes, see `reward_scorers`; without a judge the first of them is the
    guards'. concept: references, masks, held_out, identifier and without_identifier of a subject. With held-out photos
    there is a guard against copies, with masks one against the photos' place (where a photo shows any), named
    "judge_background" or, without a judge, "background". Raises MetricsError for what a scorer cannot do.
    """
    rewards = reward_scorers(reward, concept)
    judges: list[Any] = []
    if judge is not None:
        judges.append(FidelityScorer(judge, concept.references, "judge_fidelity", concept.masks))
        if judge.embed_texts([]) is not None:
            judges.append(AlignmentScorer(judge, concept.without_identifier, "judge_alignment", concept.identifier))
    watch = judge or (reward[0] if isinstance(reward, Sequence) else reward)
    if concept.held_out is not None:
        judges.append(CopyPasteScorer(watch, concept.held_out, concept.references))
    if concept.masks is not None and shows_place(concept.masks).any():
        judges.append(
            BackgroundScorer(
                watch, concept.references, concept.masks, "background" if judge is None else "judge_background"
            )
        )
    return Scorers(rewards, [*judges, DiversityScorer(watch)])


def about_scorers(loop: Any, titles: Mapping[str, str] | None = None) -> dict[str, tuple[str, str, bool]]:
    """Role, title, and whether higher is better, of all scorers of a loop (`rewards`, `judges`); `titles`: those of
    oracles, by name.
    """
    scorers = [*loop.rewards, *loop.judges]
    return {s.name: role_of(s.name) or ("oracle", (titles or {}).get(s.name, s.name), True) for s in scorers}
