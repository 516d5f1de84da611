"""What measured rounds stored in the run folder: for the panel of DPO Rounds, and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...dpo_core.concept import doubts
from ...dpo_core.evaluation.held_out import Measured
from ...dpo_core.evaluation.stop_rule import Decision, Standing, kept_words
from ...dpo_core.json_values import to_json
from ...dpo_core.loop.facts import keep_references, scorer_fact
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.run.named import LoopNames, keep_names, read_names
from ...dpo_core.statistics import by_prompt, mean_known
from ...metrics.sets import Scorers, role_of
from ..sockets import Candidates, Kept, RoundMade


def made_by(
    so_far: Kept | None, sets: Sequence[str], measured: Measured, candidates: Candidates, lora: Any
) -> tuple[RoundMade, ...]:
    """The start and all rounds so far. sets: of the start and of this round."""

    def means(name: str) -> tuple[float, float]:
        scores = measured.of(name)
        one, two = (float(mean_known(by_prompt(scores[a], measured.prompt_of))) for a in ("fidelity", "alignment"))
        return one, two

    start = so_far.made if so_far and so_far.made else (RoundMade(sets[0], "", "", "", *means(sets[0])),)
    now = RoundMade(sets[1], candidates.set_name, lora.pairs_name, lora.training, *means(sets[1]))
    return (*start, now)


def record_loop(
    run: RunFolder,
    candidates: Candidates,
    lora: Any,
    made: Sequence[RoundMade],
    found: tuple[Scorers, Sequence[Standing], Decision],
) -> None:
    """Store under which names the rounds of this loop lie in the run folder, and the facts of its report.

    found: (scorers, standings, decision).
    """
    scorers, standings, decision = found
    rounds, concept = made[1:], candidates.concept
    listed = [*scorers.rewards, *scorers.judges]
    titles = {_title(scorer.name): scorer.name for scorer in listed}
    about = {title: scorer_fact(*(role_of(title) or ("other", title, None))) for title in titles}
    facts = {
        "settings": {"rounds": len(rounds), "sampling": candidates.settings.model_dump(mode="json"), **lora.settings},
        "concept": {"identifier": concept.identifier, "class_noun": concept.class_noun},
        "scorers": about,
        "unscored": {_title(s.name): why for s in listed if (why := getattr(s, "unscored", ""))} or None,
        "unseen": list(candidates.prompts.unseen),
        "references": len(concept.references),
        "doubts": doubts(concept),
        "rounds": len(rounds),
        "watch": [to_json(s) for s in standings],
        "kept": _decided(standings, decision),
        "stopped": {"round": len(rounds) - 1, "reason": lora.stopped} if lora.stopped else None,
    }
    sets = {f"evaluation_{i}": m.evaluation for i, m in enumerate(made)}
    sets |= {f"round_{i}": m.candidates for i, m in enumerate(rounds)}
    pairs = {f"round_{i}": m.pairs for i, m in enumerate(rounds)}
    if len(rounds) == 1:
        keep_references(run, concept)
    keep_names(run, LoopNames(sets, titles, pairs, tuple(m.training for m in rounds), facts))


def record_end(run: RunFolder, standings: Sequence[Standing], decision: Decision) -> None:
    """Store why the loop ended, for its report."""
    names = read_names(run)
    if names is not None:
        keep_names(run, replace(names, facts={**names.facts, "kept": _decided(standings, decision)}))


def _decided(standings: Sequence[Standing], decision: Decision) -> dict[str, Any]:
    return {**to_json(decision), "words": kept_words(decision, standings)}


def _title(name: str) -> str:
    """The scorer's title ("fidelity_2") in the name under which its scores are stored ("fidelity_2_<fingerprint>")."""
    return name.rpartition("_")[0]
