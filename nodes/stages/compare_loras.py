"""Compare LoRAs: draw, score and rank LoRA files of any tool on one MODEL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...dpo_core.backends.comfyui import ComfyTextToImage, check_lora_file, with_lora_file
from ...dpo_core.evaluation.compare import WITHOUT, Comparison
from ...dpo_core.evaluation.enough import check_enough
from ...dpo_core.evaluation.held_out import HeldOutPlan
from ...dpo_core.json_values import to_json
from ...dpo_core.loop.comparison import Entry, compare_sets, entries, whole
from ...dpo_core.report.plots.compare import contact_sheet, plane_figure
from ...dpo_core.report.plots.figure import figure_image
from ...dpo_core.report.plots.theme import theme
from ...dpo_core.report.ranking import ranking_text
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import EvaluationSettings, StopSettings
from ...metrics.sets import concept_scorers
from ..host.lora_files import chosen_files
from ..host.runs import NodeProgress, mark, remember
from ..sockets import Candidates
from .evaluate import evaluation_set
from .sample import backend_for, settled
from .score import named


@dataclass(frozen=True)
class Compared:
    """The node's results. name, strength: of the best LoRA for Load LoRA; model, clip: with it applied.

    Where no LoRA is better than the model itself: the name of the first LoRA in the ranking, strength 0, and the MODEL
    and CLIP that came in. plane, sheet: PIL pictures.
    """

    name: str
    strength: float
    model: Any
    clip: Any
    plane: Any
    sheet: Any
    report: str
    handle: Candidates
    """With the settings that pictures were drawn with."""


def compare_loras(
    parts: tuple[Any, Any, Any],
    text: str,
    handle: Candidates,
    judges: tuple[Any, Any | None],
    seeds: int,
    progress: NodeProgress,
) -> Compared:
    """Measure the LoRAs that `text` names, and the MODEL without one, on the same held-out prompts and seeds.

    parts: (MODEL, CLIP, VAE), which stay as they are. handle: run folder, subject, prompts and how to draw, which may
    be auto; its seed is that of the evaluation. judges: (reward scorer, judge or None). seeds: pictures per prompt.
    Pictures of a file, strength and settings that were drawn before are used again. Raises UserError before anything is
    drawn for a LoRA that is not there or does not fit, and for a single held-out prompt.
    """
    check_enough(len(handle.prompts.held_out), seeds, "Compare LoRAs")
    files = chosen_files(text)
    names = {path: name for name, path, _ in files}
    given = entries([(path, strength) for _, path, strength in files])
    model, clip, vae = parts
    encoders = {entry.file: check_lora_file(model, clip, entry.file) for entry in given}
    scorers = concept_scorers(*judges, handle.concept)
    handle = settled(handle, model)
    base, plain = evaluation_set(model, clip, vae, handle, handle.settings, seeds, progress)
    sets = {WITHOUT: plain} | {e.name: f"compare_{mark(plain, e.digest, e.strength)}" for e in given}
    with RunFolder(handle.folder) as run:
        remember(handle.folder)
        models = {plain: nullcontext(base)} | {
            sets[e.name]: _wearing(run, sets[e.name], parts, e, encoders[e.file], (base, handle, seeds, progress))
            for e in given
        }
        by_title = {s.name: s for s in [*scorers.rewards, *scorers.judges]}
        by_title = {title: named(scorer) for title, scorer in by_title.items()}
        plan = HeldOutPlan(handle.prompts.held_out, seeds, handle.settings, handle.settings.seed, by_title)
        stop, resamples = StopSettings(), EvaluationSettings().bootstrap
        found = compare_sets(run, plan, sets, models, stop, resamples, progress)
        run.set_fact(f"comparison_{mark(sets)}", {**to_json(found), "sets": sets})
        with theme("dark"):
            plane, sheet = figure_image(plane_figure(found)), contact_sheet(run, found, sets)
    said = ranking_text(found, _measured(handle, seeds))
    return Compared(*_winner(found, given, names, (model, clip)), plane, sheet, said, handle)


@contextmanager
def _wearing(
    run: RunFolder,
    kept: str,
    parts: tuple[Any, Any, Any],
    entry: Entry,
    encoder: bool,
    drawing: tuple[ComfyTextToImage, Candidates, int, NodeProgress],
) -> Iterator[ComfyTextToImage]:
    """The backend of a clone of the MODEL with the LoRA; the plain one where every picture of `kept` is there already.

    encoder: whether the LoRA changes the CLIP; if not, the prompts are encoded once for all.
    """
    base, handle, seeds, progress = drawing
    if whole(run, kept, len(handle.prompts.held_out), seeds):
        yield base
        return
    model, clip = with_lora_file(*parts[:2], entry.file, entry.strength)
    backend = backend_for(model, clip if encoder else parts[1], parts[2], handle, progress)
    if not encoder:
        backend.take_texts(base)
    yield backend


def _winner(
    found: Comparison, given: list[Entry], names: dict[Path, str], parts: tuple[Any, Any]
) -> tuple[str, float, Any, Any]:
    """Name, strength, MODEL and CLIP of the best; see `Compared`."""
    by_name = {entry.name: entry for entry in given}
    if found.best == WITHOUT:
        first = next(place.name for place in found.places if place.name != WITHOUT)
        return names[by_name[first].file], 0.0, *parts
    best = by_name[found.best]
    return names[best.file], best.strength, *with_lora_file(*parts, best.file, best.strength)


def _measured(handle: Candidates, seeds: int) -> str:
    prompts = len(handle.prompts.held_out)
    return (
        f"{seeds} pictures of each of {prompts} held-out prompts, same seeds for all; gains over the model {WITHOUT}, "
        "in standard deviations within prompts, with 95 % intervals."
    )
