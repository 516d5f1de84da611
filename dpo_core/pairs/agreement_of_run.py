"""Agreement of a run's scorers with a person's decisions, from the scores and decisions in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import UserError
from ..records import Pair
from ..run.folder import RunFolder
from ..scoring.sets import axis_scores
from ..settings import PairSettings
from .agreement import LEAST, WEIGHTS, Agreement, Choices, Weight, agreeing, best_weight, choices_of, share_of
from .edits import Edits
from .rules import reward_of

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Prompt of each candidate (int [n]), fidelity and alignment as the pair rule has them (float [n])."""


class Basis(BaseModel):
    """What decisions were made on: candidates, pairs, pair rule and scorers. It is stored beside the decisions."""

    model_config = ConfigDict(frozen=True)

    set_name: str
    pairs_name: str
    settings: PairSettings
    fidelity: tuple[str, ...]
    alignment: tuple[str, ...]
    titles: dict[str, str]
    """Title of each scorer by its name in the run: rewards and judges."""


@dataclass(frozen=True)
class Stored:
    """Stored decisions of one Inspect Pairs node, and what they were made on (None: stored by an older version)."""

    edits: Edits
    basis: Basis | None
    workflow: str = ""
    node: str = ""


def agreement(run: RunFolder, edits: Edits, basis: Basis) -> Agreement:
    """How often each scorer, each axis of several scorers, and the pair rule agree with the decisions.

    Raises UserError when the scores of a scorer are missing.
    """
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(basis.set_name)])
    choices = choices_of(edits, len(prompt_of))
    if choices.decisions < LEAST:
        return Agreement(choices)
    names = {"Fidelity": basis.fidelity, "Alignment": basis.alignment}
    axes = {title: axis_scores(run, basis.set_name, n, basis.settings.combine) for title, n in names.items()}
    shares = [share_of(title, agreeing(_scores(run, basis, name), choices)) for name, title in basis.titles.items()]
    for title, scorers in names.items():
        if len(scorers) > 1:
            shares.append(share_of(f"{title} (all its scorers)", agreeing(axes[title], choices)))
    whole = (prompt_of, axes["Fidelity"], axes["Alignment"])
    rule = share_of(f"The pair rule ({basis.settings.rule})", _by_rule(run, basis, whole, choices))
    return Agreement(choices, tuple(shares), rule, _weight(basis.settings, whole, choices))


def _scores(run: RunFolder, basis: Basis, name: str) -> np.ndarray:
    try:
        return run.score_array(basis.set_name, name)
    except KeyError as missing:
        raise UserError(
            f"candidate {missing} of {basis.set_name} lacks a score by {name}: score the set again."
        ) from missing


def _by_rule(run: RunFolder, basis: Basis, axes: Axes, choices: Choices) -> np.ndarray:
    """Values of `agreeing` for the pair rule: by its reward, or by its pairs for a rule without one."""
    if basis.settings.rule in ("lambda_harmonic", "weighted_sum"):
        return agreeing(_reward(basis.settings, axes), choices)
    return in_pairs(run.pairs(basis.pairs_name), choices)


def in_pairs(pairs: Sequence[Pair], choices: Choices) -> np.ndarray:
    """Whether pairs prefer what the person prefers, float64 [n]: 1 yes, 0 no, NaN for two candidates of no pair."""
    ways = {(p.winner, p.loser) for p in pairs}
    both = zip(choices.preferred.tolist(), choices.other.tolist(), strict=True)
    return np.asarray([1.0 if (a, b) in ways else 0.0 if (b, a) in ways else np.nan for a, b in both])


def _reward(settings: PairSettings, axes: Axes) -> np.ndarray:
    """The reward of a rule that has one, float64 [n]; NaN for candidates that lack a score.

    Without `diversity`, which is of a set of pictures: a person compares two.
    """
    settings = settings.model_copy(update={"diversity": 0.0})
    prompt_of, fidelity, alignment = axes
    known, found = ~np.isnan(fidelity + alignment), np.full(len(prompt_of), np.nan)
    found[known] = reward_of(prompt_of[known], fidelity[known], alignment[known], settings)
    return found


def _weight(settings: PairSettings, axes: Axes, choices: Choices) -> Weight | None:
    """The weight that agrees best, by the reward of the pair rule, or by one that its scores allow."""
    if not len(choices.preferred):
        return None
    used = settings.rule in ("lambda_harmonic", "weighted_sum")
    cosines = max(np.nanmax(np.abs(axis), initial=0.0) for axis in axes[1:]) <= 1
    rule = settings.rule if used else "lambda_harmonic" if cosines else "weighted_sum"

    def tried(weight: float) -> np.ndarray:
        return agreeing(_reward(settings.model_copy(update={"rule": rule, "fidelity_weight": weight}), axes), choices)

    by_weight = {weight: tried(weight) for weight in WEIGHTS}
    return best_weight(by_weight, tried(settings.fidelity_weight), settings.fidelity_weight, rule, used)


def stored_decisions(run: RunFolder) -> list[Stored]:
    """All decisions that Inspect Pairs nodes stored in this run and that can be read, the oldest first."""
    found = []
    for fact in run.facts("decisions_").values():
        stored = fact if isinstance(fact, dict) else {}
        try:
            edits = Edits.model_validate(stored.get("edits", stored))
            basis = Basis.model_validate(stored["basis"]) if stored.get("basis") else None
        except ValidationError:  # written by another version
            continue
        if len(edits.pairs):
            where = [str(stored.get(part) or "") for part in ("workflow", "node")]
            found.append((stored.get("number") or 0, Stored(edits, basis, *where)))
    return [stored for _, stored in sorted(found, key=lambda entry: entry[0])]
