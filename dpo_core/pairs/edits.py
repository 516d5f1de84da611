"""Manual overrides of selected pairs: parse, validate, apply.

Decisions are kept by the pair's id, "<winner>-<loser>" as the rule gave it, and by the fingerprint of the candidates
that were looked at: what was said of other candidates is never applied to these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from ..errors import UserError
from ..records import Candidate, Pair
from ..run.folder import RunFolder
from ..settings import PairSettings
from .rules import reward_of

LONGEST = 1_000_000
"""Of the edits' text. Unit: characters; 500 candidates make some 10,000."""
MARK = 16
"""Hex digits of a fingerprint."""

PairId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}-[0-9]{1,9}$")]
Position = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Fingerprint = Annotated[str, StringConstraints(pattern=rf"^([0-9a-f]{{{MARK}}})?$")]

UNPAIRED = frozenset({"kto"})
"""Objectives that take single good and bad pictures too, not only pairs."""


class Edits(BaseModel):
    """What the inspector's hidden text holds: decisions on pairs by id, thumbs on candidates by position."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    fingerprint: Fingerprint = ""
    pairs: dict[PairId, Literal["keep", "swap", "reject"]] = {}
    candidates: dict[Position, Literal["up", "down"]] = {}

    @model_validator(mode="after")
    def _once(self) -> Edits:
        for name in self.pairs:
            winner, loser = name.split("-")
            if int(winner) == int(loser):
                raise ValueError(f"the pair {name} is of one candidate with itself")
            if f"{loser}-{winner}" in self.pairs:
                raise ValueError(f"the pairs {name} and {loser}-{winner} are one pair, decided twice")
        return self

    def __len__(self) -> int:
        return len(self.pairs) + len(self.candidates)

    def as_dict(self) -> dict:
        return self.model_dump(mode="json")


def read_edits(text: str) -> Edits:
    """The edits of a text; an empty one has none.

    Raises UserError for anything that the inspector would not have written.
    """
    if not text.strip():
        return Edits()
    remedy = "Empty the text for no decisions, or take what the Inspect Pairs node writes."
    if len(text) > LONGEST:
        raise UserError(f"edits have {len(text)} characters, more than {LONGEST}. {remedy}")
    try:
        return Edits.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise UserError(f"edits {_short(text)} cannot be read: {where}: {first['msg']}. {remedy}") from error


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else repr(text[:57] + "...")


def pair_id(pair: Pair) -> str:
    return f"{pair.winner}-{pair.loser}"


def candidates_fingerprint(candidates: Sequence[Candidate], pictures: Sequence[str]) -> str:
    """16 hex digits of prompts, seeds and picture contents (`pictures`: a mark of each), in their order."""
    listed = [(c.prompt, c.seed, mark) for c, mark in zip(candidates, pictures, strict=True)]
    return hashlib.sha256(json.dumps(listed, ensure_ascii=False).encode()).hexdigest()[:MARK]


@dataclass(frozen=True)
class Overruled:
    """Pairs after a person's decisions, in their old order.

    `thumbs`: "up" or "down" by position. Counts are of applied decisions.
    """

    pairs: list[Pair]
    thumbs: dict[int, str] = field(default_factory=dict)
    kept: int = 0
    swapped: int = 0
    rejected: int = 0
    stale: int = 0
    other: bool = False
    """Whether the edits were made for other candidates: all of them are stale then."""

    @property
    def changed(self) -> int:
        return self.swapped + self.rejected

    def sentence(self) -> str:
        ups = sum(way == "up" for way in self.thumbs.values())
        said = [
            f"{len(self.pairs)} pairs; {self.changed} changed: {self.swapped} swapped, {self.rejected} rejected; {self.kept} kept.",
            f"Thumbs: {ups} up, {len(self.thumbs) - ups} down, for the objective kto." if self.thumbs else "",
        ]
        if self.stale:
            why = (
                "made on other candidates" if self.other else "the pair rule no longer makes those pairs this way round"
            )
            said.append(f"{self.stale} decision{'s' * (self.stale > 1)} dropped: {why}.")
        return " ".join(filter(None, said))


def apply_edits(pairs: Sequence[Pair], edits: Edits, fingerprint: str, candidates: int) -> Overruled:
    """Put decisions over pairs of `candidates` candidates: a swapped pair has its improvement negated, a rejected one
    is left out.

    Stale, so not applied: all edits under another fingerprint, and decisions on pairs that are not there (this way
    round).
    """
    if len(edits) and edits.fingerprint != fingerprint:
        return Overruled(list(pairs), stale=len(edits), other=True)
    thumbs = {
        int(position): way
        for position, way in sorted(edits.candidates.items(), key=lambda e: int(e[0]))
        if int(position) < candidates
    }
    left: list[Pair] = []
    done = {"keep": 0, "swap": 0, "reject": 0}
    for pair in pairs:
        decision = edits.pairs.get(pair_id(pair))
        if decision:
            done[decision] += 1
        if decision == "swap":
            left.append(Pair(pair.loser, pair.winner, -pair.d_fidelity, -pair.d_alignment))
        elif decision != "reject":
            left.append(pair)
    stale = len(edits) - sum(done.values()) - len(thumbs)
    return Overruled(left, thumbs, done["keep"], done["swap"], done["reject"], stale)


# --- what was decided, kept in the run ---


@dataclass(frozen=True)
class Place:
    """Where decisions were made: the workflow's id, the node's in it, and a mark of the pairs that came in. "" where it
    is not known.
    """

    workflow: str = ""
    node: str = ""
    pairs: str = ""


@dataclass(frozen=True)
class Kept:
    """Decisions that a run keeps, and whether they were made at the place that asks for them."""

    edits: Edits
    here: bool


def keep_decisions(run: RunFolder, edits: Edits, place: Place = Place()) -> None:
    """Keep the decisions on these candidates, in place of earlier ones of the same node in the same workflow; other
    nodes' stay.
    """
    number = 1 + max((_number(fact) for fact in run.facts(f"decisions_{edits.fingerprint}").values()), default=0)
    where = hashlib.sha256(json.dumps([place.workflow, place.node]).encode()).hexdigest()[:MARK]
    run.set_fact(
        f"decisions_{edits.fingerprint}_{where}", {"number": number, **asdict(place), "edits": edits.as_dict()}
    )


def kept_decisions(run: RunFolder, fingerprint: str, place: Place = Place()) -> Kept | None:
    """The decisions on these candidates that the run keeps for this place: its own; else those of the same pairs; else
    the latest.

    So each of two inspectors finds its own, and a lone one finds what there is: in another workflow, as another node,
    of an older version.
    """
    found: list[tuple[tuple, Kept]] = []
    for fact in run.facts(f"decisions_{fingerprint}").values():
        kept = fact if isinstance(fact, dict) else {}
        try:
            edits = Edits.model_validate(kept.get("edits", kept))  # before there were places the edits lay there alone
        except ValidationError:  # of another version
            continue
        if not len(edits) or edits.fingerprint != fingerprint:
            continue
        same_node, same_pairs = kept.get("node") == place.node, kept.get("pairs") == place.pairs
        here = "edits" in kept and same_node and kept.get("workflow") == place.workflow
        found.append(((here, same_pairs, same_node, _number(fact)), Kept(edits, here)))
    return max(found, key=lambda entry: entry[0])[1] if found else None


def _number(fact: object) -> int:
    """Which of the kept ones came first; 0: of a version without numbers."""
    number = fact.get("number") if isinstance(fact, dict) else None
    return number if isinstance(number, int) else 0


def set_thumbs(run: RunFolder, pairs_name: str, thumbs: Mapping[int, str]) -> None:
    """Thumbs that go with the pairs of this name into training, see `stages.pair_data`."""
    run.set_fact(f"thumbs_{pairs_name}", {str(position): way for position, way in thumbs.items()})


def thumbs_of(run: RunFolder, pairs_name: str) -> dict[int, str]:
    return {int(position): way for position, way in (run.fact(f"thumbs_{pairs_name}") or {}).items()}


def thumbs_words(thumbs: Mapping[int, str], objective: str) -> str:
    """What training did with the thumbs; nothing where there are none."""
    if not thumbs:
        return ""
    if objective in UNPAIRED:
        return f"Thumbs on single candidates counted, too: {len(thumbs)}."
    return f"Thumbs on single candidates were not used ({len(thumbs)}): the objective {objective} takes pairs alone; kto takes both."


# --- which pairs to look at first ---


def boundary_distance(
    pairs: Sequence[Pair],
    settings: PairSettings,
    window: tuple[float, float] | None,
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
) -> list[float]:
    """How little would have made the rule decide otherwise, for each pair, in standard deviations of the round;
    smallest = look first.

    angle_window: how far the tip of the improvement lies from the edge of the region that the rule accepts, min(|r -
    margin|, r sin d), with r its length and d the degrees to the nearer end of the window (r where d is 90 or more).
    One number of both, since both are distances in one plane. pareto: |r - margin|. lambda_harmonic, weighted_sum: |g -
    margin|, g the difference of the reward in its standard deviations. random: 0, it has no boundary.
    """
    if settings.rule == "random":
        return [0.0] * len(pairs)
    lengths = _reward_gaps(pairs, settings, prompt_of, fidelity, alignment)
    to_margin = [abs(length - settings.margin) for length in lengths]
    if settings.rule != "angle_window" or window is None:
        return to_margin
    to_edge = [p.length * np.sin(np.radians(min(90.0, _degrees_to(p.angle, window)))) for p in pairs]
    return [float(min(both)) for both in zip(to_margin, to_edge, strict=True)]


def _degrees_to(angle: float, window: tuple[float, float]) -> float:
    """From an angle to the nearer end of the window, whichever side it lies on, 0..180."""
    apart = [abs((angle - end + 180) % 360 - 180) for end in window]
    return min(apart)


def _reward_gaps(
    pairs: Sequence[Pair], settings: PairSettings, prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray
):
    """What the rule holds against the margin, of each pair."""
    reward = reward_of(prompt_of, fidelity, alignment, settings)
    if reward is None:
        return [p.length for p in pairs]
    return [abs(float(reward[p.winner] - reward[p.loser])) for p in pairs]
