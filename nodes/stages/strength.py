"""Strength Sweep: measure a trained LoRA at several strengths on a MODEL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...dpo_core.backends.comfyui import LiveAdapter, adapter_of_lora, live_adapter, with_live_adapter
from ...dpo_core.digits import with_interval
from ...dpo_core.errors import UserError
from ...dpo_core.evaluation.enough import check_enough
from ...dpo_core.evaluation.strength import Sweep, judge, read_strengths
from ...dpo_core.json_values import to_json
from ...dpo_core.loop.strength_sweep import scaled_state
from ...dpo_core.report.plots.figure import figure_image
from ...dpo_core.report.plots.strength import strength_figure, strength_strip
from ...dpo_core.report.plots.theme import theme
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import EvaluationSettings, SamplingSettings, StopSettings
from ...metrics.sets import concept_scorers
from ..host.runs import NodeProgress, mark
from ..sockets import Candidates
from .evaluate import measure


@dataclass(frozen=True)
class Swept:
    """The node's results: two PIL pictures, the recommended strength, and the report."""

    curve: Any
    strip: Any
    value: float
    report: str


def strength_sweep(
    parts: tuple[Any, Any, Any],
    lora: Mapping[str, Any],
    candidates: Candidates,
    settings: SamplingSettings,
    judges: tuple[Any, Any | None],
    strengths: str,
    seeds: int,
    progress: NodeProgress,
) -> Swept:
    """Draw and score held-out pictures at every strength, and recommend one.

    parts: (MODEL without adapter, CLIP, VAE). judges: (reward scorer, judge or None). seeds: pictures per prompt.
    Pictures that Evaluate Before/After drew with the same model, prompts and seeds are reused. Raises UserError for a
    MODEL that already carries an adapter, for a LoRA that does not fit the MODEL, and for a single held-out prompt.
    """
    check_enough(len(candidates.prompts.held_out), seeds, "Strength Sweep")
    model, clip, vae = parts
    if live_adapter(model) is not None:
        raise UserError(
            "the MODEL already carries a trained adapter, which would act beside the LoRA at every strength. Connect "
            "the original MODEL: the one that goes into the first train step."
        )
    adapter = adapter_of_lora(model, lora, "the connected LoRA")
    strengths = read_strengths(strengths)
    worn = [
        with_live_adapter(model, LiveAdapter(scaled_state(adapter.state, s), adapter.settings)) if s else model
        for s in strengths
    ]
    with RunFolder(candidates.folder) as run:
        scorers = concept_scorers(*judges, candidates.concept)
        names, measured = measure(run, worn, clip, vae, candidates, settings, scorers, seeds, progress)
        sets = dict(zip(strengths, names, strict=True))
        found = judge(measured, sets, StopSettings(), EvaluationSettings().bootstrap)
        run.set_fact(f"strength_{mark(list(names))}", to_json(found))
        with theme("dark"):
            curve, strip = figure_image(strength_figure(found.points, found.value)), strength_strip(run, found)
        return Swept(curve, strip, found.value, words(found, seeds))


def words(found: Sweep, seeds: int) -> str:
    """The report: the recommendation, then one line for each strength."""
    lines = [
        found.words,
        f"{seeds} pictures of each held-out prompt at every strength, same seeds; gains in standard deviations.",
    ]
    for point in found.points:
        gain = point.gain
        said = f"gain {with_interval(gain.mean, gain.low, gain.high)}" if point.strength else "the original"
        guards = f"; {' and '.join(point.broken)}" if point.broken else ""
        lines.append(
            f"{point.strength:g}: fidelity {point.fidelity.mean:.3f}, alignment {point.alignment.mean:.3f}, "
            f"{said}{guards}"
        )
    return "\n".join(lines)
