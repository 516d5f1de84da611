"""DPO Rounds: the plan of its run, made by the first inner node that knows model and prompts."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ...dpo_core.backends.comfyui import ComfyTextToImage, without_live_adapter
from ...dpo_core.errors import UserError
from ...dpo_core.families import Family, adapter_for, sampling_for, training_for
from ...dpo_core.loop.estimate import before_start
from ...dpo_core.loop.time_left import Meter, plan_parts
from ...dpo_core.settings import (
    AdapterSettings,
    EvaluationSettings,
    LoopSettings,
    PairSettings,
    SamplingSettings,
    StopSettings,
    TrainSettings,
    settings_of_widgets,
)
from ...dpo_core.training.adapter import adapter_values
from ...dpo_core.training.memory.before import Fit, fit_before
from ..host.rounds_run import RoundsRun
from ..host.runs import NodeProgress
from ..sockets import Candidates


def plan_rounds(progress: NodeProgress, candidates: Candidates, backend: ComfyTextToImage, begun: bool) -> None:
    """Plan the run of the DPO Rounds that the node is in, once; does nothing for a node outside it.

    candidates: with settled settings. begun: whether some are drawn. The estimate goes to the log and the panel. Raises
    UserError where the disk, or the device's memory by prediction, cannot hold a run that has not begun.
    """
    run = progress.loop
    if run is None or run.meter is not None:
        return
    settings = loop_settings(run, backend.family, backend.latent_shape)
    held_out = len(candidates.prompts.held_out) if run.measured else 0
    prompts = len(candidates.prompts.train)
    values = math.prod(backend.latent_shape), adapter_values(backend.denoiser, settings.adapter)
    fit = None if begun else _fit(backend, settings, candidates.prompts.train[0])
    run.lines = before_start(settings, (prompts, held_out), values, candidates.folder, begun, fit)
    run.chunk = settings.sampling.chunk_size
    run.meter = Meter(plan_parts(settings, prompts, held_out), run.started)
    progress.again()
    logging.info("DreamBooth DPO, run %s: %s", run.run_name, " ".join(run.lines))


def _fit(backend: ComfyTextToImage, settings: LoopSettings, prompt: str) -> Fit | None:
    """The predicted memory of training the MODEL without a live adapter; None on a CPU, where nothing is predicted."""
    if backend.device.type == "cpu":
        return None
    plain = copy.copy(backend)
    plain.patcher = without_live_adapter(backend.patcher)
    plain.training_batch = 2 * settings.train.batch_size
    return fit_before(plain, settings.adapter, settings.train, backend.latent_shape, prompt)


def loop_settings(run: RoundsRun, family: Family, latent_shape: tuple[int, ...]) -> LoopSettings:
    """The settings of the loop by the widgets of its node, with the family's values where they are auto.

    Raises UserError for settings that do not go together.
    """
    widgets = run.widgets
    seeds = widgets.get("seeds_per_prompt")
    more: dict[str, Any] = {} if seeds is None else {"seeds_per_prompt": seeds}
    parts = {
        "sampling": sampling_for(settings_of_widgets(SamplingSettings, widgets), family),
        "pairs": settings_of_widgets(PairSettings, widgets),
        "adapter": adapter_for(settings_of_widgets(AdapterSettings, widgets), family),
        "train": training_for(settings_of_widgets(TrainSettings, widgets), family, latent_shape),
        "evaluation": EvaluationSettings(every_round=run.measured, **more),
        "stop": StopSettings(rule="best" if run.measured else "last"),
    }
    try:
        return LoopSettings(rounds=run.rounds, **parts)
    except ValidationError as error:
        said = [problem["msg"].removeprefix("Value error, ") for problem in error.errors()]
        raise UserError(". ".join(said) + ".") from error


def settings_json(**parts: Any) -> Mapping[str, Any]:
    """Settings by name as JSON values."""
    return {name: part.model_dump(mode="json") for name, part in parts.items()}
