"""Runs without a host: builds model, scorers, prompts and loop on diffusers from a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .dpo_core.backends.diffusers.devices import device_of
from .dpo_core.backends.diffusers.devices import pick_device as pick_device
from .dpo_core.concept import Concept
from .dpo_core.config import RunConfig
from .dpo_core.crew import ALONE, Crew
from .dpo_core.json_values import to_json
from .dpo_core.loop.facts import finish, keep_facts
from .dpo_core.loop.own_pairs import OwnInput, described_own, read_own_pairs
from .dpo_core.loop.rounds import Loop
from .dpo_core.loop.start import kept_start, photos_fidelity, save_start, start_probe
from .dpo_core.progress import Progress, silent
from .dpo_core.prompt_text import check_encoded
from .dpo_core.prompts import PromptSet
from .dpo_core.run.files import atomic_path, write_json
from .dpo_core.run.folder import RunFolder
from .dpo_core.run.images import warn
from .dpo_core.run.photo_folder import look
from .dpo_core.run.same_run import PARTS, check_same_run
from .dpo_core.run.trackers import Trackers, check_trackers
from .dpo_core.sampling.pool import photos_of
from .dpo_core.settings import AdapterSettings
from .dpo_core.training.adapter import Adapter
from .dpo_core.training.shares import check_shares
from .headless_inputs import check_candidate_lora_file, put_candidate_lora
from .headless_inputs import config_concept as config_concept
from .headless_inputs import config_prompts as config_prompts
from .headless_inputs import mask_finder as mask_finder
from .headless_inputs import settled_config as settled_config
from .metrics.from_folders import clip_scorers
from .metrics.sets import Scorers, about_scorers

if TYPE_CHECKING:
    from .dpo_core.backends.diffusers.loading import Model
    from .dpo_core.evaluation.strength import Sweep
    from .dpo_core.processes.leader import Processes
    from .dpo_core.processes.worker import Worker


@dataclass(frozen=True)
class Parts:
    """The parts named by a config, checked and loaded; nothing is sampled or written yet."""

    concept: Concept
    prompts: PromptSet
    scorers: Scorers
    model: Model
    own: OwnInput | None = None

    def described(self) -> dict:
        """What a run depends on besides its settings, as plain JSON."""
        concept = self.concept
        return {
            "model": self.model.fingerprint,
            PARTS: self.model.described_parts(),
            "concept": [concept.identifier, concept.class_noun, int(concept.references.astype(np.int64).sum())],
            "prompts": [list(self.prompts.train), list(self.prompts.held_out)],
            "scorers": self.scorers.fingerprints,
        }


def parts_from_config(config: RunConfig, crew: Crew = ALONE) -> Parts:
    """Check and load the parts of a config, cheap checks first. crew: each process has a GPU of its own.

    Raises UserError or MetricsError that names the wrong file or value.
    """
    from .dpo_core.backends.diffusers.loading import check_model, check_quantized
    from .dpo_core.backends.diffusers.loras import read_layers

    concept = config_concept(config)
    prompts = config_prompts(config, concept)
    own = read_own_pairs(config.own_pairs, concept, config.sampling)
    device = device_of(pick_device(config.model.device), crew)
    given = config.model
    check_model(given.path, given.configs)
    check_quantized(given.path, given.configs, device, given.quantize, given.lora is not None)
    if given.lora is not None:
        read_layers(given.lora)
    names = [p.name for p in look(config.concept.references, "reference photos").photos] if config.scorers.faces else []
    scorers = clip_scorers(config.scorers.rewards, config.scorers, concept, device, names)
    for line in scorers.doubts:
        warn(line)
    model = config_model(config, device)
    for line in check_encoded([*prompts.train, *prompts.held_out], model.pipe):
        warn(line)
    return Parts(concept, prompts, scorers, model, own)


def config_model(config: RunConfig, device: str, more: Mapping[Path, float] | None = None) -> Model:
    """The model of a config, with its LoRA and those of `more` (strength by file) merged into the weights."""
    from .dpo_core.backends.diffusers.loading import load_model

    given = config.model
    loras = {given.lora: given.lora_strength} if given.lora is not None else {}
    precision, sampling, merged = config.train.precision, config.sampling, {**loras, **(more or {})}
    return load_model(given.path, given.configs, device, precision, sampling, merged, given.quantize)


def open_loop(
    config: RunConfig,
    parts: Parts,
    adapter: Adapter,
    resume: bool,
    progress: Progress,
    crew: Crew = ALONE,
    **more: object,
) -> Loop:
    """The loop in its run folder. `more`: further facts that must be equal when a run is resumed."""
    described = {"settings": config.loop().model_dump(mode="json"), **parts.described(), **more}
    run, concept = RunFolder(config.output), parts.concept
    loop = Loop(
        run, parts.model, adapter, parts.prompts, parts.scorers.rewards, parts.scorers.judges, config.loop(), progress,
        crew, Trackers(run, config.log_with, config.model_dump(mode="json")),
        photos_of(parts.concept, config.sampling), parts.own,
    )  # fmt: skip
    check_same_run(run, described, resume)
    fact = {"identifier": concept.identifier, "class_noun": concept.class_noun, "name": concept.subject}
    keep_facts(loop, fact, concept, about_scorers(loop))
    return loop


def loop_from_config(config: RunConfig, resume: bool, progress: Progress = silent, crew: Crew = ALONE) -> Loop:
    """Check and load everything for a run; nothing is sampled yet. crew: the processes that share the work."""
    check_trackers(config.log_with)
    config = settled_config(config)
    check_shares(config.train, crew)
    check_candidate_lora_file(config.model)
    parts = parts_from_config(config, crew)
    adapter = Adapter(parts.model.denoiser, config.adapter, seed=config.sampling.seed)
    more = {**put_candidate_lora(config.model, parts.model), **described_own(parts.own)}
    return open_loop(config, parts, adapter, resume, progress, crew, **more)


def worker_from_config(config: RunConfig, crew: Processes) -> Worker:
    """The work of a process that does not lead, ready to serve. It never opens the run folder."""
    from .dpo_core.processes.worker import Worker

    check_trackers(config.log_with)
    config = settled_config(config)
    check_candidate_lora_file(config.model)
    parts = parts_from_config(config, crew)
    put_candidate_lora(config.model, parts.model)
    adapter = Adapter(parts.model.denoiser, config.adapter, seed=config.sampling.seed)
    return Worker(crew, parts.model, adapter, [*parts.scorers.rewards, *parts.scorers.judges])


def evaluate_lora(config: RunConfig, lora: Path, resume: bool, progress: Progress = silent) -> dict:
    """Evaluate held-out prompts without and with a LoRA, of any tool; return the report's numbers.

    A LoRA that fits the config's adapter is measured as `run` measures it; any other is merged into the model with
    strength 1. Images, scores and report are written to `config.output`. Raises UserError when the LoRA does not fit
    the model.
    """
    from .dpo_core.backends.diffusers.loras import plan_merge, read_layers
    from .dpo_core.report.page import write_report
    from .dpo_core.training.lora_files import fits_adapter, load_into_adapter, lora_file

    config, lora = settled_config(config), lora_file(lora)
    read_layers(lora)
    parts = parts_from_config(config)
    adapter = Adapter(parts.model.denoiser, config.adapter, seed=config.sampling.seed)
    own = fits_adapter(adapter, lora)
    if not own:
        check_merges(config)
        plan_merge(parts.model.pipe, lora)  # before anything is sampled, because it may belong to another model
    loop = open_loop(config, parts, adapter, resume, progress, lora=sha256(lora.read_bytes()).hexdigest()[:16])
    loop.evaluate(0)
    if own:
        load_into_adapter(adapter, lora)
    else:
        loop = _with_merged(loop, config, lora)
    loop.evaluate(1)
    loop.run.set_fact("rounds", 1)
    return write_report(loop.run)


def check_merges(config: RunConfig) -> None:
    """Raises UserError where no LoRA can be merged into the config's model (one that is stored quantized)."""
    from .dpo_core.backends.diffusers.loading import check_quantized

    given = config.model
    check_quantized(given.path, given.configs, pick_device(given.device), given.quantize, True)


def _with_merged(loop: Loop, config: RunConfig, lora: Path) -> Loop:
    """The loop with a freshly loaded model whose weights hold the LoRA too, and an adapter that changes nothing.

    Loaded again, because the weights in use may be in half precision already.
    """
    device = str(loop.model.device)
    loop.model.pipe.to("cpu")
    model = config_model(config, device, {lora: 1.0})
    return replace(loop, model=model, adapter=Adapter(model.denoiser, config.adapter, seed=config.sampling.seed))


def sweep_lora(config: RunConfig, lora: Path, resume: bool, progress: Progress = silent) -> Sweep:
    """Sweep a LoRA that `run` wrote over the strengths of `config.strength`.

    Writes curve.png, strip.png and strength.json to `config.output`; the LoRA is not changed. Raises UserError when it
    belongs to another model, or has another rank, alpha or targets.
    """
    from .dpo_core.loop.strength_sweep import sweep
    from .dpo_core.report.strength import strength_pictures
    from .dpo_core.training.lora_files import load_into_adapter, lora_file

    config, lora = settled_config(config), lora_file(lora)
    parts = parts_from_config(config)
    adapter = Adapter(parts.model.denoiser, config.adapter, seed=config.sampling.seed)
    load_into_adapter(adapter, lora)  # before anything is sampled, because it may belong to another model
    loop = open_loop(config, parts, adapter, resume, progress, lora=sha256(lora.read_bytes()).hexdigest()[:16])
    found = sweep(loop)
    for name, picture in zip(("curve.png", "strip.png"), strength_pictures(loop.run), strict=True):
        with atomic_path(config.output / name) as beside:
            beside.write_bytes(picture.png)
    write_json(config.output / "strength.json", to_json(found))
    return found


def personalize_from_config(
    config: RunConfig, out: Path | None = None, progress: Progress = silent
) -> tuple[Path, dict]:
    """Train a DreamBooth LoRA on the config's model and photos; return its path and its record.

    An existing one made with the same settings is reused.
    """
    from .dpo_core.training.dreambooth import personalize

    config = settled_config(config)
    folder = out or config.output.with_name(config.output.name + "_start")
    lora = folder / "start.safetensors"
    parts, settings = parts_from_config(config), config.personalize
    described = {
        "personalize": settings.model_dump(mode="json"),
        "sampling": config.sampling.of_held_out().described(),
        **parts.described(),
    }
    if kept := kept_start(folder, described):
        return lora, kept
    adapter = Adapter(
        parts.model.denoiser,
        AdapterSettings(rank=settings.rank, alpha=settings.rank, targets="all"),
        seed=settings.seed,
    )
    fidelity = next(s for s in parts.scorers.rewards if s.name == "fidelity")
    probe = start_probe(parts.prompts, config.sampling, parts.scorers.rewards)
    start = personalize(
        parts.model, adapter, parts.concept, settings, probe, photos_fidelity(fidelity, parts.concept), progress
    )
    return lora, save_start(folder, adapter, start, described, getattr(parts.model, "component", "unet"))


def run_loop(loop: Loop, name: str = "dreambooth_dpo_lora") -> tuple[Path, dict]:
    """Run the whole loop, write the LoRA and the report; return the LoRA's path and the report's numbers."""
    from .dpo_core.report.page import write_report

    rounds = loop.go()
    lora = finish(loop, rounds, name)
    return lora, write_report(loop.run)
