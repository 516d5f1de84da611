"""Pairs by the pair rule, and their pictures."""

from __future__ import annotations

from dataclasses import dataclass

from ...dpo_core.loop.drafts import told
from ...dpo_core.pairs.build import build_pairs
from ...dpo_core.pairs.choose import PairYield
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import PairSettings
from ..host.runs import NodeProgress, mark
from ..sockets import Pairs, Scored
from .score import Cloud, scores_of


@dataclass(frozen=True)
class Paired:
    """Pairs with all that their cloud needs."""

    handle: Pairs
    found: PairYield
    pairs: list
    scores: Cloud
    told: str | None
    """What drafts told about the candidates, in words; None where they were not chosen by drafts."""


def make_pairs(scored: Scored, settings: PairSettings, progress: NodeProgress) -> Paired:
    """Pairs by the settings' rule, kept under a name that their settings make."""
    candidates = scored.candidates
    name = f"{candidates.set_name}_pairs_{mark(scored.fidelity, scored.alignment, settings.model_dump())}"
    with RunFolder(candidates.folder) as run:
        found = build_pairs(run, candidates.set_name, settings, name, progress, scored.fidelity, scored.alignment)
        drafts = told(run, candidates.set_name, (scored.fidelity, scored.alignment), settings.combine)
        said = drafts.sentence() if drafts else None
        return Paired(
            Pairs(scored, name, settings), found, run.pairs(name), scores_of(run, scored, settings.combine), said
        )


def pair_pictures(handle: Pairs, first: int, count: int) -> tuple[list, int]:
    """PairPicture of `count` pairs from number `first` on, and how many pairs there are."""
    from ...dpo_core.report.plots.grids import PairPicture

    scored, name = handle.scored, handle.scored.candidates.set_name
    with RunFolder(scored.candidates.folder) as run:
        pairs, candidates = run.pairs(handle.name), run.candidates(name)
        fidelity, alignment, _ = scores_of(run, scored, handle.settings.combine)
        shown = []
        for pair in pairs[first : first + count]:
            winner, loser = run.images(name, [pair.winner, pair.loser])
            both = [(fidelity[i], alignment[i]) for i in (pair.winner, pair.loser)]
            shown.append(PairPicture(candidates[pair.winner].prompt, winner, loser, *both, pair.angle, pair.length))
        return shown, len(pairs)
