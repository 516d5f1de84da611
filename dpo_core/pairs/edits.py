"""Manual overrides of selected pairs: parse, validate, apply.

A decision is stored with the pair's id, "<winner>-<loser>" as the rule gave it, and the fingerprint of the candidates
that the person saw. Decisions on other candidates are never applied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from ..errors import UserError
from ..records import Candidate, Pair
from ..run.folder import RunFolder
from ..settings import GROUPED
from ..settings.words import in_words

MAX_LENGTH = 1_000_000
"""Maximum length of the edits text, in characters. 500 candidates need about 10,000."""
DIGITS = 16
"""Number of hex digits of a fingerprint."""

PairId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}-[0-9]{1,9}$")]
Position = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Fingerprint = Annotated[str, StringConstraints(pattern=rf"^([0-9a-f]{{{DIGITS}}})?$")]

UNPAIRED = frozenset({"kto"})
"""Objectives that also train on single good and bad candidates, not only on pairs."""


class Edits(BaseModel):
    """Content of the Inspect Pairs node's hidden text: decisions by pair id, thumbs by candidate position."""

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
                raise ValueError(f"the pair {name} is a candidate paired with itself")
            if f"{loser}-{winner}" in self.pairs:
                raise ValueError(f"{name} and {loser}-{winner} are the same pair, decided twice")
        return self

    def __len__(self) -> int:
        return len(self.pairs) + len(self.candidates)


def read_edits(text: str) -> Edits:
    """Parse the edits text; an empty text gives no edits.

    Raises UserError for a text that the Inspect Pairs node would not have written.
    """
    if not text.strip():
        return Edits()
    remedy = "Empty the text to drop all decisions, or use the text that the Inspect Pairs node writes."
    if len(text) > MAX_LENGTH:
        raise UserError(f"edits has {len(text)} characters, more than {MAX_LENGTH}. {remedy}")
    try:
        return Edits.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"edits {_short(text)} cannot be read: {_wrong(error)}. {remedy}") from error


def _wrong(error: ValidationError) -> str:
    """The first wrong place of the text, in words."""
    first = error.errors(include_url=False)[0]
    place, given = [str(part) for part in first["loc"] if part != "[key]"], first["input"]
    own = {
        "json_invalid": "it is not JSON",
        "extra_forbidden": "there is no such entry",
        "value_error": first["msg"].removeprefix("Value error, "),
    }.get(first["type"], f"{in_words(given)} is not what the node writes there")
    return ": ".join([".".join(place), own] if place else [own])


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else repr(text[:57] + "...")


def pair_id(pair: Pair) -> str:
    """Id of a pair: "<winner>-<loser>"."""
    return f"{pair.winner}-{pair.loser}"


def candidates_fingerprint(candidates: Sequence[Candidate], pictures: Sequence[str]) -> str:
    """Fingerprint (16 hex digits) of the candidates: prompts, seeds and picture hashes (`pictures`), in order."""
    listed = [(c.prompt, c.seed, mark) for c, mark in zip(candidates, pictures, strict=True)]
    return hashlib.sha256(json.dumps(listed, ensure_ascii=False).encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class Overruled:
    """Pairs after a person's decisions, in their original order.

    `thumbs`: "up" or "down" by candidate position. `kept`, `swapped`, `rejected`: applied decisions. `stale`: decisions
    that were not applied.
    """

    pairs: list[Pair]
    thumbs: dict[int, str] = field(default_factory=dict)
    kept: int = 0
    swapped: int = 0
    rejected: int = 0
    stale: int = 0
    other: bool = False
    """Whether the edits were made for other candidates; then all of them are stale."""

    @property
    def changed(self) -> int:
        return self.swapped + self.rejected

    def sentence(self) -> str:
        """The counts of applied and dropped decisions in words."""
        ups = sum(way == "up" for way in self.thumbs.values())
        sentences = [
            f"{len(self.pairs)} pairs go to training: {self.kept} confirmed, {self.swapped} swapped; "
            f"{self.rejected} rejected.",
            f"Thumbs: {ups} up, {len(self.thumbs) - ups} down, for the objective kto." if self.thumbs else "",
        ]
        if self.stale:
            why = (
                "made on other candidates" if self.other else "the pair rule no longer makes those pairs this way round"
            )
            sentences.append(f"{self.stale} decision{'s' * (self.stale > 1)} dropped: {why}.")
        return " ".join(filter(None, sentences))


def apply_edits(pairs: Sequence[Pair], edits: Edits, fingerprint: str, candidates: int) -> Overruled:
    """Apply decisions to pairs: a swapped pair has its improvement negated, a rejected pair is left out.

    `candidates`: number of candidates in the set. Stale decisions are not applied: all edits with another fingerprint,
    and decisions on pairs that do not exist in this direction.
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


# --- storing decisions in the run ---


@dataclass(frozen=True)
class Place:
    """Where decisions were made: the ids of workflow and node, and a fingerprint of the incoming pairs.

    "" where unknown.
    """

    workflow: str = ""
    node: str = ""
    pairs: str = ""


@dataclass(frozen=True)
class Kept:
    """Decisions stored in a run. `here`: they were made by the same node of the same workflow that asks for them."""

    edits: Edits
    here: bool


def keep_decisions(
    run: RunFolder, edits: Edits, place: Place = Place(), basis: Mapping[str, object] | None = None
) -> None:
    """Store decisions in the run, replacing earlier ones of the same node, workflow and candidates.

    Decisions of other nodes are not changed. basis: what they were made on (see `agreement_of_run.Basis`), as JSON.
    """
    number = 1 + max((_number(fact) for fact in run.facts(f"decisions_{edits.fingerprint}").values()), default=0)
    where = hashlib.sha256(json.dumps([place.workflow, place.node]).encode()).hexdigest()[:DIGITS]
    run.set_fact(
        f"decisions_{edits.fingerprint}_{where}",
        {"number": number, **asdict(place), "edits": edits.model_dump(mode="json"), "basis": basis},
    )


def kept_decisions(run: RunFolder, fingerprint: str, place: Place = Place()) -> Kept | None:
    """The stored decisions on these candidates that fit this place best; None if there are none.

    Order of preference: made at this place; on the same pairs; by the same node; the latest. So each of two Inspect
    Pairs nodes gets its own decisions, and a single one also gets those of another workflow, another node or an older
    version.
    """
    matches: list[tuple[tuple, Kept]] = []
    for fact in run.facts(f"decisions_{fingerprint}").values():
        stored = fact if isinstance(fact, dict) else {}
        try:
            edits = Edits.model_validate(stored.get("edits", stored))  # older versions stored the edits alone
        except ValidationError:  # written by another version
            continue
        if not len(edits) or edits.fingerprint != fingerprint:
            continue
        same_node, same_pairs = stored.get("node") == place.node, stored.get("pairs") == place.pairs
        here = "edits" in stored and same_node and stored.get("workflow") == place.workflow
        matches.append(((here, same_pairs, same_node, _number(fact)), Kept(edits, here)))
    return max(matches, key=lambda entry: entry[0])[1] if matches else None


def _number(fact: object) -> int:
    """Serial number of stored decisions, in the order of storing; 0 for those of a version without numbers."""
    number = fact.get("number") if isinstance(fact, dict) else None
    return number if isinstance(number, int) else 0


def set_thumbs(run: RunFolder, pairs_name: str, thumbs: Mapping[int, str]) -> None:
    """Store the thumbs that are trained on together with these pairs (see `training.dataset.pair_data`)."""
    run.set_fact(f"thumbs_{pairs_name}", {str(position): way for position, way in thumbs.items()})


def thumbs_of(run: RunFolder, pairs_name: str) -> dict[int, str]:
    """The stored thumbs: "up" or "down" by candidate position."""
    return {int(position): way for position, way in (run.fact(f"thumbs_{pairs_name}") or {}).items()}


def thumbs_words(thumbs: Mapping[int, str], objective: str) -> str:
    """A sentence on how training uses the thumbs; "" when there are none."""
    if not thumbs:
        return ""
    if objective in UNPAIRED:
        return f"Thumbs on single candidates were used: {len(thumbs)}."
    what = "scores" if objective in GROUPED else "pairs"
    return (
        f"Thumbs on single candidates were not used ({len(thumbs)}): the objective {objective} trains on {what} only; "
        "kto trains on both."
    )
