"""The evaluation stage on two MODELs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dpo_core.backends.comfyui import ComfyTextToImage
from ..dpo_core.evaluation import Gain, paired_gain
from ..dpo_core.grids import before_after_grid, evenly
from ..dpo_core.report_words import change_word, interval_words
from ..dpo_core.rounds import EVALUATION_SALT
from ..dpo_core.run_folder import RunFolder
from ..dpo_core.sampling import sample_set
from ..dpo_core.scoring import score_set
from ..dpo_core.settings import SamplingSettings
from ..metrics.sets import Scorers, concept_scorers, role_of
from .compare import compare
from .run import NodeProgress, mark
from .sockets import Candidates
from .stages import backend_for, named

_SHOWN_PROMPTS, _SHOWN_SEEDS = 6, 3


@dataclass(frozen=True)
class Evaluated:
    """What the node gives out: the grid (PIL), the report in plain words, and what the page's slider shows (nodes/compare.py)."""

    grid: Any
    report: str
    compare: dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """Held-out pictures of two models with equal seeds: their sets, and scores by the names that `concept_scorers` gives."""

    sets: tuple[str, str]
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    prompt_of: np.ndarray

    @property
    def gains(self) -> dict[str, Gain]:
        return {name: paired_gain(scores, self.after[name], self.prompt_of) for name, scores in self.before.items()}


def evaluate(
    models: tuple[Any, Any],
    clip: Any,
    vae: Any,
    candidates: Candidates,
    settings: SamplingSettings,
    judges: tuple[Any, Any | None],
    seeds: int,
    progress: NodeProgress,
) -> Evaluated:
    """Draw and score held-out pictures of both models."""
    scorers = concept_scorers(*judges, candidates.concept)
    with RunFolder(candidates.folder) as run:
        measured = measure(run, models, clip, vae, candidates, settings, scorers, seeds, progress)
        gains = measured.gains
        run.set_fact(f"report_{mark(measured.sets)}", {title: gain.as_dict() for title, gain in gains.items()})
        grid = _grid(run, measured.sets, candidates.prompts.held_out, seeds)
        return Evaluated(grid, words(gains), compare(run, measured, candidates.prompts.held_out, seeds))


def measure(
    run: RunFolder,
    models: tuple[Any, Any],
    clip: Any,
    vae: Any,
    candidates: Candidates,
    settings: SamplingSettings,
    scorers: Scorers,
    seeds: int,
    progress: NodeProgress,
) -> Measured:
    """Draw and score what is missing of both models' held-out pictures."""
    titles = {s.name: s for s in [*scorers.rewards, *scorers.judges]}
    kept = {title: named(scorer).name for title, scorer in titles.items()}
    prompts, sets = candidates.prompts.held_out, []
    for model in models:
        backend, name = evaluation_set(model, clip, vae, candidates, settings, seeds, progress)
        sample_set(run, name, backend, prompts, seeds, settings, settings.seed, EVALUATION_SALT, progress)
        sets.append(name)
    for name in sets:
        score_set(run, name, list(titles.values()), progress)
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(sets[0])])
    before, after = ({t: run.score_array(s, n) for t, n in kept.items()} for s in sets)
    return Measured((sets[0], sets[1]), before, after, prompt_of)


def evaluation_set(
    model: Any, clip: Any, vae: Any, candidates: Candidates, settings: SamplingSettings, seeds: int, progress: NodeProgress
) -> tuple[ComfyTextToImage, str]:
    """The model as it draws held-out pictures, and the name of their set: what they are drawn with makes it."""
    backend = backend_for(model, clip, vae, candidates, progress)
    drawn_with = backend.fingerprint, candidates.prompts.held_out, settings.described(), repr(candidates.sampler), seeds
    return backend, "evaluation_" + mark(*drawn_with)


def _grid(run: RunFolder, sets: Sequence[str], prompts: tuple[str, ...], seeds: int) -> Any:
    """A few prompts and seeds, evenly chosen: the choice looks at no score."""
    rows, columns = evenly(len(prompts), _SHOWN_PROMPTS), evenly(seeds, _SHOWN_SEEDS)
    pictures = [[run.images(name, [p * seeds + s for s in columns]) for p in rows] for name in sets]
    return before_after_grid(*pictures, [prompts[p] for p in rows])


def words(gains: dict[str, Any]) -> str:
    """One line a score: before, after, gain with its interval, and what that means."""
    first = next(iter(gains.values()))
    lines = [f"{first.images} held-out pictures of {first.prompts} prompts, equal seeds; 95 % intervals over prompts."]
    for name, gain in gains.items():
        _, title, higher = role_of(name)
        change = change_word(gain.verdict, higher)
        lines.append(f"{title}: {gain.before:.3f} -> {gain.after:.3f} ({gain.gain:+.3f}, {interval_words(gain.as_dict())}): {change}")
    rewards, judges = ([gains[n].verdict for n in names if n in gains] for names in (("fidelity", "alignment"), ("judge_fidelity",)))
    if rewards == ["up", "up"] and "down" not in judges:
        answer = "Both axes rose."
    elif "down" in rewards or "down" in judges:
        answer = "Something was lost: look at the pictures before you use this LoRA."
    else:
        answer = "No clear gain on both axes: the change may be chance."
    return "\n".join([answer, *lines])
