"""DPO LoRA Train Step: train one round on a MODEL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...dpo_core.backends.comfyui import (
    ComfyTextToImage,
    LiveAdapter,
    diffusers_names,
    export_of,
    host,
    live_adapter,
    lora_prefixes,
    model_family,
    prefixes_in,
    with_live_adapter,
    without_live_adapter,
)
from ...dpo_core.errors import UserError
from ...dpo_core.families import adapter_for, training_for
from ...dpo_core.pairs.edits import thumbs_of, thumbs_words
from ...dpo_core.pairs.own import own_of, own_prompts
from ...dpo_core.report.plots.figure import figure_image
from ...dpo_core.report.plots.theme import theme
from ...dpo_core.report.plots.training import training_figure
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import AdapterSettings, TrainSettings, settings_of_widgets
from ...dpo_core.training.adapter import Adapter
from ...dpo_core.training.dataset import TrainingData
from ...dpo_core.training.groups import GroupData, training_data
from ...dpo_core.training.lora_export import Export
from ...dpo_core.training.lora_files import load_tensors, lora_tensors
from ...dpo_core.training.memory.levels import streams
from ...dpo_core.training.objectives import NO_PREFERENCE
from ...dpo_core.training.round import train_round
from ...dpo_core.training.steps import training_seed
from ..host.curve import CurveFeed, curve
from ..host.families import auto_words, trained_with
from ..host.runs import NodeProgress, mark
from ..sockets import AUTO, Pairs
from .rounds import plan_rounds, settings_json


class DPOLora(dict):
    """LORA_MODEL state dict (names to tensors, as ComfyUI's own nodes take it) with training metadata."""

    rank: int
    alpha: float
    targets: str
    metadata: dict[str, str]
    fingerprint: str = ""
    """Fingerprint of the adapter on the MODEL that the same training returned."""
    winner_alarm: float = 0.0
    """Highest mean winner error of 20 steps in the round."""
    stopped: str | None = None
    """Why a guard stopped the training, or None."""
    curves: Any = None
    note: str = ""
    """What Save DPO LoRA says about the LoRA, if anything."""
    pairs_name: str = ""
    """Name of the pairs that it was trained on last, in the run folder."""
    training: str = ""
    """Name of that training under <run>/training."""
    settings: Mapping[str, Any] = {}
    """Settings of adapter, training and pairs, as JSON values."""
    export: Export | None = None
    """What its diffusers form needs; None: to be found by the MODEL."""


@dataclass(frozen=True)
class Trained:
    """The node's results."""

    model: Any
    lora: DPOLora
    curves: Any
    summary: str
    settings: dict[str, Any]
    """What the page shows beside widgets that are auto: the family's name and the value of each widget."""
    curve: dict[str, Any]
    """The training curve for the page (nodes/host/curve.py)."""


def settings_of(widgets: Mapping[str, Any]) -> tuple[AdapterSettings, TrainSettings]:
    """The core's settings from the widgets of a training node."""
    level = _level(widgets.get("memory") or "auto", widgets["checkpointing"])
    return (
        settings_of_widgets(AdapterSettings, widgets),
        settings_of_widgets(TrainSettings, widgets, memory=level),
    )


def _level(memory: str, checkpointing: bool) -> str:
    """The memory level; the older checkpointing switch means level checkpointing, unless a leaner one is set."""
    return "checkpointing" if checkpointing and memory in ("auto", "fast") else memory


def train_step(
    model: Any, clip: Any, pairs: Pairs, widgets: Mapping[str, Any], lora: Any, progress: NodeProgress, feed: CurveFeed
) -> Trained:
    """Train one round; a finished round is read back from the run folder.

    Settings that are auto take those of the adapter that training continues from, or the values of the model's family.

    Training continues from the adapter on the MODEL or from `lora`, else it starts from B = 0. Raises UserError if both
    are given, or if the adapter on the MODEL has another rank, alpha or targets.
    """
    adapter_settings, settings = settings_of(widgets)
    riding, family = live_adapter(model), model_family(model)
    adapter_settings = adapter_for(_continued(adapter_settings, riding, lora), family)
    _check_start(riding, lora, adapter_settings)
    candidates = pairs.scored.candidates
    backend = ComfyTextToImage(without_live_adapter(model), clip, None)
    backend.training_batch = settings.width * settings.batch_size
    with RunFolder(candidates.folder) as run:
        backend.encode_texts([*candidates.prompts.train, *own_prompts(run, pairs.name)])
        backend.latent_shape = tuple(run.latents(candidates.set_name).shape[1:])
    settings = training_for(settings, family, backend.latent_shape)
    plan_rounds(progress, candidates, backend, begun=True)
    with RunFolder(candidates.folder) as run, backend.training(streams(settings)):
        names = diffusers_names(backend.patcher.model)
        adapter = Adapter(backend.denoiser, adapter_settings, widgets["train_seed"], backend.device, names)
        prefixes = lora_prefixes(backend.patcher.model, adapter.layers)
        if riding is not None:
            adapter.load(riding.state)
        elif lora is not None:
            held = prefixes_in(lora, backend.patcher.model, adapter.layers)
            load_tensors(adapter, lora, "the connected LoRA", held)
        rewarded = pairs.settings, pairs.scored.fidelity, pairs.scored.alignment
        data = training_data(run, candidates.set_name, pairs.name, backend, settings, *rewarded)
        start = LiveAdapter(adapter.state(), adapter_settings).fingerprint
        listed, thumbs = [(p.winner, p.loser) for p in run.pairs(pairs.name)], thumbs_of(run, pairs.name)
        number = widgets.get("round") or 0
        seeds, own = [widgets["train_seed"], *([number] if number else [])], own_of(run, pairs.name)
        more = [*seeds, *([own.set_name, own.weight] if own else [])]
        key = mark(backend.fingerprint, start, pairs.name, listed, settings.described(), *more)
        with RunFolder(candidates.folder / "training" / key) as inner:
            seed = training_seed(widgets["train_seed"], number)
            stopped = train_round(inner, 0, backend, adapter, data, settings, seed, progress, feed.watch(settings))
            records = inner.training(0)
        live = LiveAdapter(adapter.state(), adapter_settings)
        tensors = DPOLora(lora_tensors(adapter, prefixes))
        tensors.export = export_of(backend.patcher.model, prefixes)
    tensors.fingerprint, tensors.stopped = live.fingerprint, stopped
    tensors.pairs_name, tensors.training = pairs.name, key
    tensors.settings = settings_json(adapter=adapter_settings, train=settings, pairs=pairs.settings)
    subject, count = candidates.concept.subject, str(len(listed))
    tensors.metadata = {"dreambooth_dpo.concept": subject, "dreambooth_dpo.pairs": count}
    tensors.note = rounding_note(host.rounding_of_merge(without_live_adapter(model), tensors))
    _describe(tensors, records, adapter_settings, settings)
    shown = trained_with(family, adapter_settings, settings)
    counted, note = _counted(len(listed), data), f"For loading: {tensors.note}." if tensors.note else None
    said = _summary(records, counted, stopped, settings.objective), thumbs_words(thumbs, settings.objective)
    summary = "\n".join(filter(None, (*said, note, auto_words(shown, widgets))))
    live_model = with_live_adapter(backend.patcher, live)
    return Trained(live_model, tensors, tensors.curves, summary, shown, curve(records, settings))


@theme("dark")
def _describe(tensors: DPOLora, records: list[dict], adapter: AdapterSettings, settings: TrainSettings) -> None:
    """Set what the LoRA carries of its training: adapter settings, highest winner alarm, curves."""
    tensors.rank, tensors.alpha, tensors.targets = adapter.rank, adapter.alpha, adapter.targets
    tensors.winner_alarm = max((float(r["winner_alarm"]) for r in records), default=0.0)
    limits = settings.winner_error_warning, settings.winner_error_collapse
    betas, pairs = (settings.beta_floor, settings.beta_ceiling), tensors.metadata["dreambooth_dpo.pairs"]
    tensors.curves = figure_image(training_figure([records], *limits, f"{pairs} pairs", settings.objective, betas))


def _continued(settings: AdapterSettings, riding: LiveAdapter | None, lora: Any) -> AdapterSettings:
    """The settings with rank, alpha and targets of the adapter that training continues from, where they are auto."""
    start = riding.settings if riding is not None else lora
    given = {name: getattr(start, name, None) for name in ("rank", "alpha", "targets")}
    auto = {name: value for name, value in given.items() if value and getattr(settings, name) in (None, AUTO)}
    return settings.model_copy(update=auto)


def rounding_note(error: float | None) -> str:
    """How to load a LoRA that is off by `error` when merged (host.rounding_of_merge); "" where every loader will do."""
    if error is None:
        return ""
    return (
        f"the base model's weights have 8 bits or fewer. Load this LoRA in bypass mode (LoraLoaderBypass): merged into "
        f"the weights, it would be off by {error:.0%} of its effect, because they are rounded again"
    )


def _check_start(riding: LiveAdapter | None, lora: Any, settings: AdapterSettings) -> None:
    if riding is not None and lora is not None:
        raise UserError(
            "the MODEL already carries a trained adapter, and a LoRA is connected to continue_from: the trained "
            "weights would count twice. Disconnect continue_from, or connect the MODEL without the adapter."
        )
    if riding is not None and riding.settings != settings:
        was = riding.settings
        raise UserError(
            f"the MODEL carries an adapter of rank {was.rank}, alpha {was.alpha:g}, targets {was.targets!r}; this node "
            f"is set to rank {settings.rank}, alpha {settings.alpha:g}, targets {settings.targets!r}. Set the same, or "
            "connect the MODEL without it."
        )


def _counted(automatic: int, data: TrainingData) -> str:
    """What was trained on, in words. automatic: number of the rule's pairs."""
    if isinstance(data, GroupData):
        own = f" and {data.own} own pairs" if data.own else ""
        candidates = sum(len(of) for of in data.members) - 2 * data.own
        return (
            f"all {candidates} scored candidates of {len(data) - data.own} prompts{own} (not on the rule's pairs, and "
            "not by decisions on them)"
        )
    return f"{automatic} pairs and {data.own} own" if data.own else f"{automatic} pairs"


def _summary(records: list[dict], pairs: str, stopped: str | None, objective: str) -> str:
    """Means of the last 20 steps, and why training stopped early, if it did. pairs: their numbers, in words."""
    if not records:
        return stopped or "nothing was trained"
    last = records[-20:]
    mean = {k: sum(r[k] for r in last) / len(last) for k in ("loss", "winner_error", "accuracy")}
    level = f" ({NO_PREFERENCE[objective]:.3f} = no preference)" if objective in NO_PREFERENCE else ""
    text = (
        f"{len(records)} steps on {pairs}. Last {len(last)} steps: loss {mean['loss']:.3f}{level}, "
        f"winner error {mean['winner_error']:+.4f} against the reference (+0.01 is a warning), pair accuracy "
        f"{mean['accuracy']:.2f}."
    )
    return f"{text}\n{stopped}" if stopped else text
