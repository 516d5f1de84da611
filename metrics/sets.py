"""Builds the scorers of one concept: rewards, judge scorers and guards."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .answers import Answerer, QuestionScorer
from .backgrounds import BackgroundScorer, shows_place
from .embedders import Embedder, innermost
from .errors import MetricsError
from .guards import CopyPasteScorer, DiversityScorer, SaturationScorer
from .patches import fidelity_scorer
from .scorers import AlignmentScorer, QualityScorer

ROLES = {
    "fidelity": ("reward", "Fidelity", True),
    "alignment": ("reward", "Alignment", True),
    "judge_fidelity": ("judge", "Fidelity (judge)", True),
    "judge_alignment": ("judge", "Alignment (judge)", True),
    "copy_paste": ("guard", "Copy-paste", False),
    "judge_background": ("guard", "Likeness to the photos' place (judge)", False),
    "background": ("guard", "Likeness to the photos' place (reward)", False),
    "quality": ("guard", "Quality (by people's preferences)", True),
    "diversity": ("guard", "Diversity within a prompt (Vendi)", True),
    "saturation": ("guard", "Colour saturation", None),
}
"""Role, title, and whether higher is better (None: neither direction), by scorer name. For further rewards of an axis
see `role_of`.
"""
_FURTHER = re.compile(r"(fidelity|alignment)_([2-9]|[1-9][0-9]+)")


def role_of(name: str) -> tuple[str, str, bool | None] | None:
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

    @property
    def fingerprints(self) -> list[str]:
        """Of the scorers that a run depends on, rewards first. The saturation guard is not among them: it has no model
        and no setting, and runs that began without it go on.
        """
        return [s.fingerprint for s in [*self.rewards, *self.judges] if not isinstance(s, SaturationScorer)]


def reward_scorers(rewards: Embedder | Sequence[Embedder], concept: Any) -> list[Any]:
    """Fidelity and alignment scorers of one or several embedders: "fidelity", "alignment", "fidelity_2", ...

    The first embedder must have a text tower; a further one without (DINOv2) adds a fidelity scorer only, a model that
    answers questions (`answers.Answerer`) an alignment scorer only. concept: as for `concept_scorers`. Raises
    MetricsError for no embedder, a duplicate, or a first one without a text tower.
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
        if isinstance(embedder, Answerer):
            if number == 1:
                raise MetricsError(
                    f"{embedder.name} answers questions and cannot score fidelity: give an image-text model as the "
                    "first scorer, and this one as the second or as the judge."
                )
            found.append(by_questions(embedder, concept, f"alignment{more}"))
            continue
        found.append(fidelity_scorer(embedder, concept.references, f"fidelity{more}", concept.masks))
        if number == 1 or embedder.embed_texts([]) is not None:
            found.append(AlignmentScorer(embedder, concept.without_identifier, f"alignment{more}", concept.identifier))
    return found


def by_questions(answerer: Answerer, concept: Any, name: str = "judge_alignment", **more: Any) -> QuestionScorer:
    """The alignment scorer of a model that answers questions. more: `parts` and `unit` of QuestionScorer."""
    return QuestionScorer(answerer, concept.without_identifier, name, concept.identifier, **more)


def with_quality(found: Scorers, embedder: Any, rewards: Sequence[Any], concept: Any, trained: bool = False) -> Scorers:
    """The scorers with the quality guard added; `trained`: with a further alignment reward by it instead.

    rewards: the models of the reward scorers. A reward by PickScore lies on the alignment axis, because it is the
    agreement with the prompt as people see it, picture quality included, and the axes' combination is exact there.
    Raises MetricsError for a model that is a reward already, and as QualityScorer does.
    """
    name = next_name("alignment", {scorer.name for scorer in found.rewards}) if trained else "quality"
    doubts = judge_doubts(rewards, embedder, "quality scorer")
    scorer = QualityScorer(embedder, concept.without_identifier, name, concept.identifier)
    if trained:
        return replace(found, rewards=[*found.rewards, scorer])
    return replace(found, judges=[*found.judges, scorer], doubts=(*found.doubts, *doubts))


def next_name(axis: str, taken: Collection[str]) -> str:
    """The next free name of a further reward scorer: "fidelity_2", ..."""
    return next(name for i in range(2, 1000) if (name := f"{axis}_{i}") not in taken)


def judge_doubts(rewards: Sequence[Any], judge: Any, what: str = "judge") -> tuple[str, ...]:
    """What is said of a judge that is too near to a reward: other weights of the same architecture.

    what: the judge in words. Raises MetricsError for a judge with a reward's own weights, whatever its folder: it
    measures nothing new.
    """
    found, measured = [], innermost(judge)
    for reward in map(innermost, rewards):
        own, other = (getattr(e, "weights", e.fingerprint) for e in (reward, measured))
        if own == other:
            raise MetricsError(
                f"the {what} ({judge.name}) has the same weights as the reward scorer ({reward.name}), so it would "
                f"show what was trained on as if it were an independent measure. Choose a {what} of another model, or "
                f"leave the {what} out."
            )
        if getattr(reward, "architecture", 0) == getattr(measured, "architecture", 1):
            found.append(
                f"The {what} ({judge.name}) has the architecture of the reward scorer ({reward.name}) with other "
                "weights: it may be fooled by the same pictures. A judge of another architecture, such as DINOv2, says "
                "more."
            )
    return tuple(found)


def judge_scorers(judge: Embedder | Answerer, concept: Any) -> list[Any]:
    """The judge's scorer of fidelity, and the one of alignment if it has a text tower.

    A model that answers questions judges alignment alone.
    """
    if isinstance(judge, Answerer):
        return [by_questions(judge, concept)]
    found: list[Any] = [fidelity_scorer(judge, concept.references, "judge_fidelity", concept.masks)]
    if judge.embed_texts([]) is not None:
        found.append(AlignmentScorer(judge, concept.without_identifier, "judge_alignment", concept.identifier))
    return found


def concept_scorers(
    reward: Embedder | Sequence[Embedder],
    judge: Embedder | Answerer | None,
    concept: Any,
    quality: Embedder | None = None,
) -> Scorers:
    """The rewards, judge scorers and guards of one concept.

    reward: one embedder, or several that share the axes, see `reward_scorers`. judge: scores fidelity, and alignment if
    it has a text tower; a model that answers questions judges alignment alone. Guards use the judge's embedder, else
    the first reward embedder. concept: references, masks, held_out, identifier and without_identifier of a subject.
    There is a guard of diversity and one of saturation; with held-out photos, one of copying; with masks, where a photo
    shows any background, a background guard, named "judge_background" or, without a judge's embedder, "background".
    quality: the model of the quality guard, if any. Raises MetricsError for what a scorer cannot do.
    """
    rewards = reward_scorers(reward, concept)
    judges: list[Any] = []
    doubts: tuple[str, ...] = ()
    if judge is not None:
        doubts = judge_doubts(reward if isinstance(reward, Sequence) else [reward], judge)
        judges += judge_scorers(judge, concept)
    if isinstance(judge, Answerer):
        judge = None
    embedders = list(reward) if isinstance(reward, Sequence) else [reward]
    judges += _guards(judge or embedders[0], concept, judge is None)
    found = Scorers(rewards, judges, doubts)
    return found if quality is None else with_quality(found, quality, embedders, concept)


def _guards(embedder: Embedder, concept: Any, by_reward: bool) -> list[Any]:
    """The guards by an embedder, see `concept_scorers`. by_reward: it is a reward's, as no judge has one."""
    found: list[Any] = []
    if concept.held_out is not None:
        found.append(CopyPasteScorer(embedder, concept.held_out, concept.references))
    if concept.masks is not None and shows_place(concept.masks).any():
        name = "background" if by_reward else "judge_background"
        found.append(BackgroundScorer(embedder, concept.references, concept.masks, name))
    return [*found, DiversityScorer(embedder), SaturationScorer()]


def about_scorers(loop: Any, titles: Mapping[str, str] | None = None) -> dict[str, tuple[str, str, bool | None]]:
    """Role, title, and whether higher is better, of all scorers of a loop (`rewards`, `judges`), by name.

    `titles`: titles of the oracle scorers, by name. A scorer with a `title` has that one.
    """
    found = {}
    for scorer in [*loop.rewards, *loop.judges]:
        name = scorer.name
        role, title, higher = role_of(name) or ("oracle", (titles or {}).get(name, name), True)
        found[name] = (role, getattr(scorer, "title", "") or title, higher)
    return found
