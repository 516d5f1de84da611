"""Inspect Pairs: apply a user's decisions to pairs, and collect the data that its panel shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...dpo_core.json_values import finite
from ...dpo_core.pairs.agreement import LEAST, Agreement, choices_of
from ...dpo_core.pairs.agreement_of_run import Basis, agreement
from ...dpo_core.pairs.build import layout_of
from ...dpo_core.pairs.edits import (
    Edits,
    Kept,
    Overruled,
    Place,
    apply_edits,
    candidates_fingerprint,
    keep_decisions,
    kept_decisions,
    pair_id,
    read_edits,
    set_thumbs,
    thumbs_of,
)
from ...dpo_core.pairs.own import own_of, use_own
from ...dpo_core.pairs.review_order import boundary_distance
from ...dpo_core.pairs.rules import reward_direction
from ...dpo_core.records import Candidate, Pair
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.run.previews import candidate_previews, reference_previews
from ...dpo_core.scoring.sets import axis_scores, score_set
from ...dpo_core.statistics import standardise
from ...metrics.sets import judge_scorers, role_of
from ..host.runs import NodeProgress, mark
from ..sockets import Pairs
from .score import named


@dataclass(frozen=True)
class Inspected:
    """The node's outputs, and the panel's data (JSON)."""

    handle: Pairs
    summary: str
    payload: dict[str, Any]


def place_of(node_id: str | None, graph: Any) -> Place:
    """The node's workflow and node id.

    graph: the host's extra_pnginfo; its workflow has an id if a page queued it.
    """
    workflow = graph.get("workflow") if isinstance(graph, Mapping) else None
    known = workflow.get("id") if isinstance(workflow, Mapping) else None
    return Place(str(known or ""), str(node_id or ""))


def inspect_pairs(
    handle: Pairs, text: str, progress: NodeProgress, place: Place, judge: Any | None = None
) -> Inspected:
    """Apply the decisions in `text` (edits as JSON) to the pairs, and collect the data of the panel.

    The panel shows the incoming pairs. If a decision changes something, the result is stored under a new name, else the
    incoming handle is returned. If no pairs are left, the nodes that train on them or show them raise NoPairs. judge:
    an embedder whose agreement with the decisions is measured too. Raises UserError for edits that cannot be read.
    """
    edits, candidates = read_edits(text), handle.scored.candidates
    with RunFolder(candidates.folder) as run:
        drawn, pairs = run.candidates(candidates.set_name), run.pairs(handle.name)
        files, marks = candidate_previews(run, candidates.set_name, progress)
        photos = reference_previews(run, candidates.set_name, candidates.concept.references)
        fingerprint = candidates_fingerprint(drawn, marks)
        done = apply_edits(pairs, edits, fingerprint, len(drawn))
        place = replace(place, pairs=mark([pair_id(p) for p in pairs]))
        kept = kept_decisions(run, fingerprint, place) if not len(edits) else None
        mine = Edits() if done.other else edits
        basis = _basis(run, handle, mine, len(drawn), judge, progress)
        if len(mine):
            keep_decisions(run, edits, place, basis.model_dump(mode="json"))
        found = agreement(run, mine, basis)
        payload = {
            "version": 1, "fingerprint": fingerprint, "run": candidates.folder.name, "set": candidates.set_name,
            "references": photos, "kept": kept.edits.model_dump(mode="json") if kept else None,
            "kept_here": bool(kept and kept.here), "stale": done.stale, "taken": text,
            **_cloud(run, handle, drawn, pairs), "files": files,
            "agreement": found.lines(), "enough": LEAST,
        }  # fmt: skip
        result = _result(run, handle, pairs, done)
        return Inspected(result, _words(done, kept, run.fact(f"no_pairs_{result.name}"), found), payload)


def _basis(
    run: RunFolder, handle: Pairs, edits: Edits, candidates: int, judge: Any | None, progress: NodeProgress
) -> Basis:
    """What the decisions are compared with. A judge scores the candidates once there are enough decisions."""
    scored, set_name = handle.scored, handle.scored.candidates.set_name
    rewards = {name: role_of(name.rpartition("_")[0]) for name in (*scored.fidelity, *scored.alignment)}
    titles = {name: about[1] if about else name for name, about in rewards.items()}
    if judge is not None and choices_of(edits, candidates).decisions >= LEAST:
        scorers = judge_scorers(judge, scored.candidates.concept)
        judges = {s: role_of(s.name)[1] for s in scorers}
        titles |= {named(scorer).name: title for scorer, title in judges.items()}
        score_set(run, set_name, scorers, progress)
    return Basis(
        set_name=set_name,
        pairs_name=handle.name,
        settings=handle.settings,
        fidelity=scored.fidelity,
        alignment=scored.alignment,
        titles=titles,
    )


def _result(run: RunFolder, handle: Pairs, came: list[Pair], done: Overruled) -> Pairs:
    """Store the remaining pairs and return their handle.

    Their name is a hash of the content, so that equal decisions reuse the training on them.
    """
    thumbs = {**thumbs_of(run, handle.name), **done.thumbs}
    if done.pairs == came and thumbs == thumbs_of(run, handle.name):
        return handle
    listed = [(p.winner, p.loser) for p in done.pairs]
    name = f"{handle.name}_edited_{mark(listed, sorted(thumbs.items()))}"
    run.set_pairs(name, done.pairs)
    run.set_fact(f"window_{name}", run.fact(f"window_{handle.name}"))
    none = (
        f"all {len(came)} pairs are rejected, so no pairs are left to train on. "
        "Undo rejections in Inspect Pairs, or change the pair rule."
    )
    run.set_fact(f"no_pairs_{name}", None if done.pairs else none)
    set_thumbs(run, name, thumbs)
    use_own(run, name, own_of(run, handle.name))
    return replace(handle, name=name)


def _cloud(run: RunFolder, handle: Pairs, drawn: Sequence[Candidate], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The panel's scatter plot: columns with one value per candidate, and pairs, closest to the rule's limit first.

    x, y: scores standardised over the candidates with both, see `standardise`; None, as their scores, where one of
    them is missing (`Scorer.unscored`). earlier: whether a candidate is of a round before. window: lowest and highest
    angle of the pair rule; way: the angle at which the reward rises; both in degrees and None for rules without them.
    """
    scored, settings = handle.scored, handle.settings
    prompt_of = np.asarray([c.prompt_index for c in drawn])
    axes = [
        axis_scores(run, scored.candidates.set_name, names, settings.combine)
        for names in (scored.fidelity, scored.alignment)
    ]
    known = ~np.isnan(axes[0] + axes[1])
    x, y = np.full((2, len(drawn)), np.nan)
    x[known], y[known] = (standardise(values[known], prompt_of[known]) for values in axes)
    window = run.fact(f"window_{handle.name}") if settings.rule == "angle_window" else None
    way = reward_direction(prompt_of[known], *(values[known] for values in axes), settings)
    layout = layout_of(run, scored.candidates.set_name, settings, known)
    near = boundary_distance(pairs, settings, tuple(window) if window else None, prompt_of, *axes, layout)
    order = np.argsort(near, kind="stable")
    prompts = sorted({c.prompt_index: c.prompt for c in drawn}.items())
    places = {index: place for place, (index, _) in enumerate(prompts)}
    return {
        "prompts": [prompt for _, prompt in prompts],
        "prompt": [places[c.prompt_index] for c in drawn],
        "seed": [str(c.seed) for c in drawn],  # as text: JavaScript's integers are exact up to 2**53 only
        "earlier": [c.earlier is not None for c in drawn],
        "x": _rounded(x), "y": _rounded(y), "fidelity": _rounded(axes[0]), "alignment": _rounded(axes[1]),
        "pairs": [_listed(pairs[i], near[i]) for i in order],
        "rule": settings.rule, "window": window, "margin": settings.margin,
        "way": None if way is None else round(way, 1),
    }  # fmt: skip


def _listed(pair: Pair, near: float) -> dict[str, Any]:
    numbers = {"angle": pair.angle, "length": pair.length, "near": near}
    return {
        "id": pair_id(pair),
        "winner": pair.winner,
        "loser": pair.loser,
        **{k: round(v, 4) for k, v in numbers.items()},
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    return finite([round(float(v), 4) for v in values])


def _words(done: Overruled, kept: Kept | None, none: object, found: Agreement) -> str:
    """The summary: decisions, decisions that can be restored, why there are no pairs, if so, and the agreement."""
    whose = "" if kept is None or kept.here else ", from another node or workflow"
    restorable = (
        f"Saved decisions on these candidates: {len(kept.edits)}{whose}; the node can restore them." if kept else None
    )
    return "\n".join([" ".join(filter(None, (done.sentence(), restorable, none))), *found.lines()])
