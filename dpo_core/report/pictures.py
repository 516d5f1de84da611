"""Draws the report's images from a run folder, each with its alt text and caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from ..axes import AXES, names_of
from ..errors import UserError
from ..evaluation.stop_rule import Decision, Standing
from ..json_values import from_json
from ..pairs.choose import read_yield
from ..run.folder import RunFolder
from ..scoring.sets import axis_scores
from ..settings import PairSettings, TrainSettings
from .numbers import Evaluations, mean_interval
from .plots.cloud import MOST_ARROWS, cloud_figure
from .plots.figure import figure_image
from .plots.grids import PairPicture, before_after_grid, evenly, pairs_grid, references_strip
from .plots.path import PathPoint, path_figure
from .plots.rounds import watch_figure
from .plots.training import training_figure
from .words import REWARDS, measurers, plural, reward_names

if TYPE_CHECKING:
    from PIL.Image import Image

GRID_PROMPTS, GRID_SEEDS, GRID_PAIRS, MOST_CLOUDS = 8, 3, 8, 12


@dataclass(frozen=True)
class Picture:
    """One image of the report: file name without suffix, alt text, and caption."""

    name: str
    image: Image
    alt: str
    caption: str

    @property
    def png(self) -> bytes:
        buffer = BytesIO()
        self.image.save(buffer, format="PNG")
        return buffer.getvalue()


def _images(run: RunFolder, set_name: str, positions: list[int]) -> np.ndarray:
    try:
        return run.images(set_name, positions)
    except (OSError, ValueError) as error:
        raise UserError(
            f"a picture of {set_name} in {run.path} cannot be read ({error}). Put it back, or sample that set again; "
            "scores and adapters are untouched."
        ) from error


def overview_pictures(run: RunFolder, found: Evaluations, numbers: Mapping) -> list[Picture]:
    """Reference photos, before/after grid, path, gain by round and training curves; only what the run has data for."""
    pictures = [
        p for p in (_references(run), _grid(run, found), _path(run, found), _watch(numbers, found.scorers)) if p
    ]
    records = [run.training(r) for r in range(len(numbers["training"]["steps"]))]
    if any(records):
        train = TrainSettings(**(run.fact("settings") or {}).get("train", {}))
        limits, betas = (
            (train.winner_error_warning, train.winner_error_collapse),
            (train.beta_floor, train.beta_ceiling),
        )
        figure = training_figure(records, *limits, objective=train.objective, beta_range=betas)
        caption = (
            "All rounds in a row; thin: each step, thick: mean of the last 20 steps. Each round has its own "
            "reference, so errors start at 0. Watch the winner's error: above the warning line the model gets worse "
            "at images it drew well, even if loss and accuracy improve."
        )
        pictures.append(Picture("training", figure_image(figure), "training curves", caption))
    return pictures


def _references(run: RunFolder) -> Picture | None:
    from PIL import Image

    # Not the hidden file beside a photo that a kill while writing it may have left (run/files.py).
    files = sorted((run.path / "references").glob("[!.]*.png"))[:8]
    if not files:
        return None
    try:
        arrays = [np.asarray(Image.open(f).convert("RGB")) for f in files]
    except OSError as error:
        raise UserError(
            f"a picture in {run.path / 'references'} cannot be read ({error}). Put it back or remove it."
        ) from error
    return Picture(
        "references", references_strip(arrays), "reference photos", "The photos that the concept was learned from."
    )


def _grid(run: RunFolder, found: Evaluations) -> Picture | None:
    if found.shown == 0:
        return None
    image, shown = grid_image(run, found)
    every, seeds = len(found.prompts), min(GRID_SEEDS, max(Counter(c.prompt_index for c in found.candidates).values()))
    which = "All held-out prompts"
    if shown < every:
        which = f"{shown} of {every} held-out prompts, evenly spaced over the list"
    caption = (
        f"{which}, each with its first {plural(seeds, 'seed')}. Nothing was chosen by its look or score. "
        "Before and after start from the same noise."
    )
    return Picture("grid", image, "pictures before and after, by prompt and seed", caption)


def grid_image(
    run: RunFolder, found: Evaluations, prompts: int = GRID_PROMPTS, seeds: int = GRID_SEEDS
) -> tuple[Image, int]:
    """Before and after of at most `prompts` held-out prompts, evenly spaced over the list, with their first `seeds`
    seeds; and how many prompts it shows. found.shown must be a later round than 0.
    """
    every = list(found.prompts.items())
    chosen = [every[i] for i in evenly(len(every), prompts)]
    after_places = {(c.prompt_index, c.seed): c.position for c in run.candidates(f"evaluation_{found.shown}")}
    before, after = [], []
    for index, _ in chosen:
        shown = [c for c in found.candidates if c.prompt_index == index][:seeds]
        before.append(_images(run, "evaluation_0", [c.position for c in shown]))
        after.append(_images(run, f"evaluation_{found.shown}", [after_places[c.prompt_index, c.seed] for c in shown]))
    return before_after_grid(before, after, [text for _, text in chosen]), len(chosen)


def _path(run: RunFolder, found: Evaluations) -> Picture | None:
    points, curve = path_points(run, found)
    if found.shown == 0 and not curve:
        return None
    caption = (
        "Up and to the right is better. 0 is the start, a number the mean after that round. Bars are 95 % intervals "
        "of each mean over prompts; they are wider than those of the paired gains above, because differences between "
        "prompts do not cancel."
    )
    if len(reward_names(found.scorers)) > len(REWARDS):
        caption += " Of an axis with several scorers, the first is shown."
    if curve:
        caption += (
            " Dashed: personalization alone, by optimizer steps. It is measured on other seeds (and perhaps fewer "
            "prompts), so it need not pass through 0 exactly."
        )
    return Picture("path", figure_image(path_figure(points, curve)), "path of the mean scores over rounds", caption)


def path_points(run: RunFolder, found: Evaluations) -> tuple[list[PathPoint], list[Mapping[str, float]]]:
    """The mean scores after each round, and the curve of personalization alone where the run has one; for
    `path_figure`.
    """
    curve = [c for c in run.fact("dreambooth_curve") or [] if {"step", "fidelity", "alignment"} <= set(c)]
    resamples = int(((run.fact("settings") or {}).get("evaluation") or {}).get("bootstrap", 2000))
    points = []
    for k in found.rounds:
        intervals = [mean_interval(found, k, axis, resamples) for axis in REWARDS]
        points.append(PathPoint(str(k), *(found.mean(k, axis) for axis in REWARDS), *intervals))
    return points, curve


def _watch(numbers: Mapping, scorers: Mapping[str, Mapping]) -> Picture | None:
    if not (numbers["watch"] and numbers["kept"]):
        return None
    standings = [from_json(Standing, s) for s in numbers["watch"]]
    decision = from_json(Decision, numbers["kept"])
    caption = (
        f"Gain of each round over the start: mean of both axes by {measurers(scorers)}, in standard deviations within "
        "prompts, with 95 % intervals. The round with the highest lower bound is kept. It was chosen on these held-out "
        "prompts, so its own gain is slightly overestimated."
    )
    return Picture(
        "watch", figure_image(watch_figure(standings, decision)), "gain of every round, and which one is kept", caption
    )


def round_pictures(run: RunFolder, numbers: Mapping) -> list[Picture]:
    """Cloud and pairs of every round whose candidates have all scores; of more than 12 rounds, 12 evenly spaced."""
    settings = PairSettings(**(run.fact("settings") or {}).get("pairs", {}))
    most = max([numbers["rounds"], *(y["round"] + 1 for y in numbers["pairs"])])
    ready = [r for r in range(most) if (n := len(run.candidates(f"round_{r}"))) and _scored(run, r) == n]
    pictures = []
    for r in (ready[i] for i in evenly(len(ready), MOST_CLOUDS)):
        pictures.append(_cloud(run, r, settings))
        if run.pairs(f"round_{r}"):
            pictures.append(_pairs(run, r, settings))
    return pictures


def _axes(run: RunFolder) -> list[tuple[str, ...]]:
    """Names of the reward scorers of fidelity, and those of alignment."""
    return [names_of(axis, run.fact("scorers") or ()) or (axis,) for axis in AXES]


def _scored(run: RunFolder, r: int) -> int:
    """Number of candidates that have all reward scores; 0 where two different scorers of one name made them."""
    name, scorers = f"round_{r}", [s for names in _axes(run) for s in names]
    return (
        0 if any(len(run.score_marks(name, s)) > 1 for s in scorers) else min(len(run.scores(name, s)) for s in scorers)
    )


def _round_scores(run: RunFolder, r: int, settings: PairSettings) -> tuple[np.ndarray, np.ndarray]:
    """Fidelity and alignment, float64 [n] each, as the pair rule used them."""
    fidelity, alignment = (axis_scores(run, f"round_{r}", names, settings.combine) for names in _axes(run))
    return fidelity, alignment


def _cloud(run: RunFolder, r: int, settings: PairSettings) -> Picture:
    name = f"round_{r}"
    (fidelity, alignment), pairs = _round_scores(run, r, settings), run.pairs(name)
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(name)])
    window = run.fact(f"window_{name}")
    known = ~(np.isnan(fidelity) | np.isnan(alignment))
    place = np.cumsum(known) - 1
    figure = cloud_figure(
        fidelity[known], alignment[known],
        [replace(p, winner=int(place[p.winner]), loser=int(place[p.loser])) for p in pairs],
        settings, f"Round {r + 1}", prompt_of[known], window=tuple(window) if window else None,
    )  # fmt: skip
    caption = f"{int(known.sum())} candidates; arrows run from loser to winner"
    caption += f" (the {MOST_ARROWS} longest of {len(pairs)})." if len(pairs) > MOST_ARROWS else "."
    if found := read_yield(run.fact(f"yield_{name}")):
        caption += " " + found.sentence()
    if drafts := run.fact(f"told_{name}"):
        caption += " " + drafts["sentence"]
    return Picture(f"cloud_{r}", figure_image(figure), f"candidates and pairs of round {r + 1}", caption)


def _pairs(run: RunFolder, r: int, settings: PairSettings) -> Picture:
    name = f"round_{r}"
    pairs, candidates = run.pairs(name), run.candidates(name)
    chosen = [pairs[i] for i in evenly(len(pairs), GRID_PAIRS)]
    f, a = _round_scores(run, r, settings)
    winners = _images(run, name, [candidates[p.winner].position for p in chosen])
    losers = _images(run, name, [candidates[p.loser].position for p in chosen])
    shown = [
        PairPicture(
            candidates[p.winner].prompt, w, el, (f[p.winner], a[p.winner]), (f[p.loser], a[p.loser]), p.angle, p.length
        )
        for p, w, el in zip(chosen, winners, losers, strict=True)
    ]
    which = (
        f"{len(chosen)} of {len(pairs)} pairs, evenly spaced over the list" if len(chosen) < len(pairs) else "All pairs"
    )
    several = any(len(names) > 1 for names in _axes(run))
    how = f"several scorers of an axis as their {settings.combine} in standard deviations" if several else "raw scores"
    caption = (
        f"{which}. Scores: {how}; angle 0° is pure fidelity gain, 90° pure alignment gain; SD: "
        "standard deviations of the round."
    )
    return Picture(f"pairs_{r}", pairs_grid(shown), f"winners and losers of round {r + 1}", caption)
