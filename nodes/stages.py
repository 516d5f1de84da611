"""From sockets to the core: what each stage node asks of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..dpo_core.axes import axis_of
from ..dpo_core.backends.comfyui import BATCH_INVARIANT, ComfyTextToImage
from ..dpo_core.errors import UserError
from ..dpo_core.loop.drafts import finish_set, told
from ..dpo_core.pairs.build import build_pairs
from ..dpo_core.pairs.choose import PairYield
from ..dpo_core.run.folder import RunFolder
from ..dpo_core.sampling.sets import sample_set
from ..dpo_core.scoring.sets import axis_scores, score_set
from ..dpo_core.settings import PairSettings, SamplingSettings
from ..metrics.sets import reward_scorers
from .run import NodeProgress, mark, remember
from .sockets import Candidates, Pairs, Sampler, Scored


def sampling_of(widgets: Mapping[str, Any]) -> tuple[SamplingSettings, Sampler]:
    """The core's settings, and what only ComfyUI knows, from a sampling node's widgets; `guidance_until` may be missing or None."""
    names = {"candidates_per_prompt", "steps", "width", "height", "batch_size", "seed"}
    until = widgets.get("guidance_until")
    settings = SamplingSettings(guidance=widgets["cfg"], guidance_until=1 if until is None else until, **{n: widgets[n] for n in names})
    return settings, Sampler(widgets["sampler_name"], widgets["scheduler"], widgets["negative"])


def backend_for(model: Any, clip: Any, vae: Any, candidates: Candidates, progress: NodeProgress) -> ComfyTextToImage:
    """The model as these candidates are drawn with it."""
    s, sampler = candidates.settings, candidates.sampler
    watch = progress.watch(model)
    return ComfyTextToImage(model, clip, vae, s.width, s.height, sampler.name, sampler.scheduler, sampler.negative, watch)


def draw_candidates(model: Any, clip: Any, vae: Any, handle: Candidates, progress: NodeProgress) -> tuple[Candidates, np.ndarray]:
    """Draw what is missing of the set that model, prompts and settings name; returns its handle and one picture of each prompt."""
    backend = backend_for(model, clip, vae, handle, progress)
    settings, prompts = handle.settings, handle.prompts.train
    name = _drawn_by(backend, handle)
    with RunFolder(handle.folder) as run:
        remember(handle.folder)
        sample_set(
            run, name, backend, prompts, settings.candidates_per_prompt, settings, settings.seed, handle.round, progress, compared=True
        )
        shown = [i * settings.candidates_per_prompt for i in range(len(prompts))]
        return replace(handle, set_name=name), run.images(name, shown[:64])


def _drawn_by(backend: ComfyTextToImage, handle: Candidates) -> str:
    """The name of the set that this model draws by the handle's prompts and settings."""
    later = [handle.round] if handle.round else []  # the first round's sets are named as before there was a number
    return "candidates_" + mark(backend.fingerprint, handle.prompts.train, handle.settings.described(), repr(handle.sampler), *later)


def finish_candidates(
    model: Any, clip: Any, vae: Any, handle: Pairs, steps: int, progress: NodeProgress
) -> tuple[Candidates, np.ndarray, str]:
    """Draw in full, in `steps` steps, the drafts that stand in these pairs: (their handle, one picture of each prompt, what was done).

    Raises UserError for drafts of as many steps, of a sampler that does not come near its picture in few of them, or of another MODEL.
    """
    drafts = handle.scored.candidates
    if wrong := drafts_refused(drafts.settings.steps, steps, drafts.sampler.name):
        raise UserError(wrong)
    backend = backend_for(model, clip, vae, drafts, progress)
    if _drawn_by(backend, drafts) != drafts.set_name:
        raise UserError("these drafts were drawn by another MODEL: connect the one that drew them, in Sample Candidates.")
    settings = drafts.settings.model_copy(update={"steps": steps})
    name = f"finished_{mark(drafts.set_name, handle.name, settings.described())}"
    with RunFolder(drafts.folder) as run:
        finish_set(run, drafts.set_name, handle.name, name, backend, settings, progress)
        drawn = run.candidates(name)
        first = list({c.prompt_index: c.position for c in reversed(drawn)}.values())[::-1]
        count = len(run.candidates(drafts.set_name))
        said = f"{len(drawn)} of {count} drafts stand in pairs and are drawn in full, in {steps} steps in place of {drafts.settings.steps}."
        return replace(drafts, set_name=name, settings=settings), run.images(name, first[:64]), said


def drafts_refused(draft_steps: int, steps: int, sampler: str) -> str | None:
    """Why drafts of so many steps would tell nothing, or spare nothing; None where they are of use."""
    if draft_steps >= steps:
        return f"the drafts have {draft_steps} steps and their pictures would have {steps}: draft in fewer, a third of them is usual."
    if sampler not in BATCH_INVARIANT:
        return (
            f"sampler {sampler} adds noise of its own, so that a draft in few steps shows another picture than its noise gives in many. "
            f"Take one of {', '.join(BATCH_INVARIANT)}, or draw without drafts."
        )
    return None


def named(scorer: Any) -> Any:
    """The scorer under a name of its own, so that two scorers' scores of one set are kept side by side."""
    scorer.name = f"{scorer.name}_{scorer.fingerprint[:12]}"
    return scorer


Cloud = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Fidelity [n], alignment [n] and the prompt of each candidate [n]."""


def score_candidates(candidates: Candidates, embedders: list[Any], progress: NodeProgress) -> tuple[Scored, Cloud]:
    """Score what is not scored yet, by one embedder or several; returns the handle, and the scores that the first one gave."""
    scorers = reward_scorers(embedders, candidates.concept)
    axis = [axis_of(scorer.name) for scorer in scorers]
    names = [named(scorer).name for scorer in scorers]
    fidelity, alignment = (tuple(n for n, a in zip(names, axis, strict=True) if a == which) for which in ("fidelity", "alignment"))
    with RunFolder(candidates.folder) as run:
        score_set(run, candidates.set_name, scorers, progress)
        scored = Scored(candidates, fidelity, alignment)
        return scored, _scores(run, replace(scored, fidelity=fidelity[:1], alignment=alignment[:1]))


def _scores(run: RunFolder, scored: Scored, how: str = "worst") -> Cloud:
    """As the pair rule takes them: of an axis with several scorers the combined ones (mean or worst), in standard deviations."""
    name = scored.candidates.set_name
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(name)])
    fidelity, alignment = (axis_scores(run, name, names, how) for names in (scored.fidelity, scored.alignment))
    return fidelity, alignment, prompt_of


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
        return Paired(Pairs(scored, name, settings), found, run.pairs(name), _scores(run, scored, settings.combine), said)


def pair_pictures(handle: Pairs, first: int, count: int) -> tuple[list, int]:
    """PairPicture of `count` pairs from number `first` on, and how many pairs there are."""
    from ..dpo_core.report.plots.grids import PairPicture

    scored, name = handle.scored, handle.scored.candidates.set_name
    with RunFolder(scored.candidates.folder) as run:
        pairs, candidates = run.pairs(handle.name), run.candidates(name)
        fidelity, alignment, _ = _scores(run, scored, handle.settings.combine)
        shown = []
        for pair in pairs[first : first + count]:
            winner, loser = run.images(name, [pair.winner, pair.loser])
            both = [(fidelity[i], alignment[i]) for i in (pair.winner, pair.loser)]
            shown.append(PairPicture(candidates[pair.winner].prompt, winner, loser, *both, pair.angle, pair.length))
        return shown, len(pairs)
