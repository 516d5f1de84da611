"""Evaluate Before/After: draw and score held-out pictures of two MODELs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from ...dpo_core.backends.comfyui import ComfyTextToImage
from ...dpo_core.evaluation.held_out import HeldOutPlan, Measured
from ...dpo_core.json_values import to_json
from ...dpo_core.loop.facts import scorer_fact
from ...dpo_core.report.advice import Rounds
from ...dpo_core.report.numbers import gain_dict
from ...dpo_core.report.plots.grids import before_after_grid, evenly
from ...dpo_core.report.plots.theme import theme
from ...dpo_core.report.words import evaluation_words
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import SamplingSettings
from ...metrics.sets import Scorers, concept_scorers, role_of
from ..host.compare import compare
from ..host.runs import NodeProgress, mark
from ..sockets import Candidates
from .sample import backend_for
from .score import named

_SHOWN_PROMPTS, _SHOWN_SEEDS = 6, 3


@dataclass(frozen=True)
class Evaluated:
    """The node's results: the grid (PIL), the report, and the slider's data (nodes/host/compare.py)."""

    grid: Any
    report: str
    compare: dict[str, Any]


def evaluate(
    models: tuple[Any, Any],
    clip: Any,
    vae: Any,
    candidates: Candidates,
    settings: SamplingSettings,
    judges: tuple[Any, Any | None, Any | None],
    seeds: int,
    progress: NodeProgress,
) -> Evaluated:
    """Draw and score held-out pictures of both models.

    models: (before, after). judges: (reward scorer, judge or None, quality or None). seeds: pictures per prompt.
    """
    reward, judge, quality = judges
    scorers = concept_scorers(reward, judge, candidates.concept, quality)
    with RunFolder(candidates.folder) as run:
        sets, measured = measure(run, models, clip, vae, candidates, settings, scorers, seeds, progress)
        gains = measured.gains(*sets)
        run.set_fact(f"report_{mark(sets)}", {title: to_json(gain) for title, gain in gains.items()})
        by_name = {title: gain_dict(gain) for title, gain in gains.items()}
        about = about_scores(gains)
        grid = _grid(run, sets, candidates.prompts.held_out, seeds)
        said = evaluation_words(by_name, about, rounds_of(run, start_of(sets[0], scorers), sets[1]))
        return Evaluated(grid, said, compare(run, measured, sets, candidates.prompts.held_out, seeds))


def about_scores(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Role, title and higher_is_better of each score, as the report's words take them."""
    return {name: scorer_fact(*role_of(name)) for name in names}


def measure(
    run: RunFolder,
    models: Sequence[Any],
    clip: Any,
    vae: Any,
    candidates: Candidates,
    settings: SamplingSettings,
    scorers: Scorers,
    seeds: int,
    progress: NodeProgress,
) -> tuple[tuple[str, ...], Measured]:
    """Draw and score the missing held-out pictures: (name of each model's set, scores of all sets)."""
    drawn = [evaluation_set(model, clip, vae, candidates, settings, seeds, progress) for model in models]
    titles = {s.name: s for s in [*scorers.rewards, *scorers.judges]}
    by_title = {title: named(scorer) for title, scorer in titles.items()}
    plan = HeldOutPlan(candidates.prompts.held_out, seeds, settings, settings.seed, by_title)
    measured = plan.measure(run, {name: nullcontext(backend) for backend, name in drawn}, progress)
    return tuple(name for _, name in drawn), measured


def evaluation_set(
    model: Any,
    clip: Any,
    vae: Any,
    candidates: Candidates,
    settings: SamplingSettings,
    seeds: int,
    progress: NodeProgress,
) -> tuple[ComfyTextToImage, str]:
    """The backend that draws held-out pictures, and the name of their set: a hash of all sampling inputs."""
    backend, settings = backend_for(model, clip, vae, candidates, progress), settings.of_held_out()
    drawn_with = backend.fingerprint, candidates.prompts.held_out, settings.described(), repr(candidates.sampler), seeds
    return backend, "evaluation_" + mark(*drawn_with)


def start_of(name: str, scorers: Scorers) -> str:
    """Hash of the original's set of held-out pictures and of what scores them."""
    return mark(name, scorers.fingerprints)


def rounds_of(run: RunFolder, start: str, after: str) -> Rounds | None:
    """The rounds that were measured from this start (see `Kept`), if the set `after` is that of the one kept."""
    fact = run.fact(f"rounds_{start}")
    if not isinstance(fact, dict) or fact["sets"][fact["kept"]["kept"]] != after:
        return None
    return Rounds.of(fact["kept"], fact["watch"])


@theme("dark")
def _grid(run: RunFolder, sets: Sequence[str], prompts: tuple[str, ...], seeds: int) -> Any:
    """The picture grid of a few prompts and seeds, evenly spaced and chosen without looking at scores."""
    rows, columns = evenly(len(prompts), _SHOWN_PROMPTS), evenly(seeds, _SHOWN_SEEDS)
    pictures = [[run.images(name, [p * seeds + s for s in columns]) for p in rows] for name in sets]
    return before_after_grid(*pictures, [prompts[p] for p in rows])
