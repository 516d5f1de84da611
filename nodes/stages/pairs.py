"""Build Preference Pairs and Preview Pairs: make pairs by the pair rule, and read their pictures."""

from __future__ import annotations

from dataclasses import dataclass

from ...dpo_core.errors import UserError
from ...dpo_core.loop.drafts import told
from ...dpo_core.pairs.build import build_pairs
from ...dpo_core.pairs.choose import PairYield
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import PairSettings, too_few_to_vary
from ..host.runs import NodeProgress, mark
from ..sockets import Pairs, Scored
from .score import Cloud, scores_of


@dataclass(frozen=True)
class Paired:
    """Pairs, and what their scatter plot needs."""

    handle: Pairs
    found: PairYield
    pairs: list
    scores: Cloud
    told: str | None
    """How well drafts predicted the finished candidates, in words; None without drafts."""


def make_pairs(scored: Scored, settings: PairSettings, progress: NodeProgress) -> Paired:
    """Make pairs by the rule in the settings, stored under a name derived from scorers and settings.

    Raises UserError as `build_pairs`, and where there are too few candidates of a prompt for `diversity`.
    """
    candidates = scored.candidates
    if refused := too_few_to_vary(settings.diversity, candidates.settings.candidates_per_prompt):
        raise UserError(refused)
    name = f"{candidates.set_name}_pairs_{mark(scored.fidelity, scored.alignment, settings.described())}"
    with RunFolder(candidates.folder) as run:
        found = build_pairs(run, candidates.set_name, settings, name, progress, scored.fidelity, scored.alignment)
        drafts = told(run, candidates.set_name, (scored.fidelity, scored.alignment), settings.combine)
        said = drafts.sentence() if drafts else None
        return Paired(
            Pairs(scored, name, settings), found, run.pairs(name), scores_of(run, scored, settings.combine), said
        )


def pair_pictures(handle: Pairs, first: int, count: int) -> tuple[list, int]:
    """PairPictures of up to `count` pairs from place `first` on, and the number of all pairs.

    Pairs are in an order in which the first ones show as many prompts as possible.
    """
    from ...dpo_core.report.plots.grids import PairPicture, over_prompts

    scored, name = handle.scored, handle.scored.candidates.set_name
    with RunFolder(scored.candidates.folder) as run:
        pairs, candidates = run.pairs(handle.name), run.candidates(name)
        fidelity, alignment, _ = scores_of(run, scored, handle.settings.combine)
        shown = []
        order = over_prompts([candidates[pair.winner].prompt_index for pair in pairs])
        for pair in (pairs[i] for i in order[first : first + count]):
            winner, loser = run.images(name, [pair.winner, pair.loser])
            both = [(fidelity[i], alignment[i]) for i in (pair.winner, pair.loser)]
            shown.append(PairPicture(candidates[pair.winner].prompt, winner, loser, *both, pair.angle, pair.length))
        return shown, len(pairs)
