"""Runs without a host: model, scorers, prompts and loop put together on diffusers, from a config or for a toybox concept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .dpo_core.concept import Concept
from .dpo_core.config import RunConfig, ScorerConfig
from .dpo_core.errors import UserError
from .dpo_core.loop.rounds import Loop
from .dpo_core.progress import Progress, silent
from .dpo_core.prompts import PromptSet, fill, read_templates, split
from .dpo_core.protocols import Scorer
from .dpo_core.run.files import atomic_path, write_json
from .dpo_core.run.folder import RunFolder
from .dpo_core.run.images import read_masks, read_photos
from .dpo_core.run.same_run import changes, check_same_run
from .dpo_core.seeds import derive_seed
from .dpo_core.settings import AdapterSettings, SamplingSettings
from .dpo_core.training.adapter import Adapter
from .dpo_core.training.lora_files import save_lora
from .metrics.sets import Scorers, concept_scorers, role_of

if TYPE_CHECKING:
    from .dpo_core.backends.diffusers.model import DiffusersTextToImage
    from .dpo_core.evaluation.strength import Sweep
    from .dpo_core.training.dreambooth import Probe, Start


def pick_device(name: str) -> str:
    """ "auto" -> cuda, mps or cpu, as the machine has it. Raises UserError for a device that is unknown or not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device {name!r} is unknown. Use auto, cpu, cuda, cuda:1 or mps.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise UserError(f"device {name!r} is not available: this torch sees {seen} GPUs. Use cpu, or install a torch build for your GPU.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {name!r} is not available on this machine. Use auto or cpu.")
    return name


def clip_scorers(reward: Path | Sequence[Path], judge: ScorerConfig | None, concept: Concept, device: str = "cpu") -> Scorers:
    """Fidelity and alignment by the reward models, the same by the judge if one is given; guards by the judge, else by the first reward.

    reward: the folder of an open_clip model, or several folders; those after the first may be DINOv2's. With `judge.augment` rewards take
    the mean over views of a picture; the judge never does. Raises MetricsError that says which file or model is wrong.
    """
    from .metrics.augmented import AugmentedEmbedder
    from .metrics.embedders import DinoV2Embedder, OpenClipEmbedder, load_embedder

    folders = [reward] if isinstance(reward, (str, Path)) else list(reward)
    rewards = [load_embedder(folder, device) if i else OpenClipEmbedder(folder, device=device) for i, folder in enumerate(folders)]
    if judge and judge.augment:
        rewards = [AugmentedEmbedder(embedder) for embedder in rewards]

    watch = None
    if judge and judge.judge:
        kind = DinoV2Embedder if judge.judge_kind == "dinov2" else OpenClipEmbedder
        watch = kind(judge.judge, device=device)
    return concept_scorers(rewards, watch, concept)


def keep_facts(loop: Loop, concept_fact: dict, concept: Concept, titles: dict[str, str] | None = None) -> None:
    """What the report needs to know about a run."""
    from PIL import Image

    run = loop.run
    scorers = {}
    for scorer in [*loop.rewards, *loop.judges]:
        role, title, higher = role_of(scorer.name) or ("oracle", (titles or {}).get(scorer.name, scorer.name), True)
        scorers[scorer.name] = {"role": role, "title": title, "higher_is_better": higher}
    run.set_fact("settings", loop.settings.model_dump(mode="json"))
    run.set_fact("concept", concept_fact)
    run.set_fact("scorers", scorers)
    run.set_fact("unseen", list(loop.prompts.unseen))
    run.set_fact("references", len(concept.references))
    for i, pixels in enumerate(concept.references):
        with atomic_path(run.path / "references" / f"{i:02d}.png") as beside:
            Image.fromarray(pixels).save(beside)


def finish(loop: Loop, rounds: int, name: str) -> Path:
    """Write the LoRA of the adapter as it stands; returns its path.

    Where the original is kept (`rounds` 0) that LoRA changes nothing; the best round that was tried is written too, beside it, as
    <name>_tried_round_<k>.
    """
    concept = json.dumps(loop.run.fact("concept"), ensure_ascii=False)

    def write(stem: str, number: int) -> Path:
        path = loop.run.path / f"{stem}.safetensors"
        save_lora(loop.adapter, path, {"dreambooth_dpo.rounds": str(number), "dreambooth_dpo.concept": concept})
        return path

    path, tried = write(name, rounds), (loop.run.fact("kept") or {}).get("best")
    if not rounds and tried and (found := loop.run.load_state(f"adapter_{tried}")):
        kept = loop.adapter.state()
        loop.adapter.load(found[0])
        write(f"{name}_tried_round_{tried}", tried)
        loop.adapter.load(kept)
    return path


def config_concept(config: RunConfig) -> Concept:
    size = (config.sampling.width, config.sampling.height)
    held_out = read_photos(config.concept.held_out, *size, "held-out photos") if config.concept.held_out else None
    photos, folder = config.concept.references, config.concept.masks
    masks = read_masks(folder, photos, *size) if folder else None
    return Concept(config.concept.identifier, config.concept.class_noun, read_photos(photos, *size), held_out, masks)


def config_prompts(config: RunConfig, concept: Concept) -> PromptSet:
    templates = read_templates(config.prompts)
    if config.held_out_prompts is None:
        return split(templates, concept)
    held_out = [fill(t, concept) for _, t in read_templates(config.held_out_prompts)]
    return PromptSet(tuple(dict.fromkeys(fill(t, concept) for _, t in templates)), tuple(dict.fromkeys(held_out)))


@dataclass(frozen=True)
class Parts:
    """What a config names, checked and loaded; nothing is sampled or written yet."""

    concept: Concept
    prompts: PromptSet
    scorers: Scorers
    model: DiffusersTextToImage

    def described(self) -> dict:
        """What a run depends on beside its settings, as plain JSON."""
        concept = self.concept
        return {
            "model": self.model.fingerprint,
            "concept": [concept.identifier, concept.class_noun, int(concept.references.astype(np.int64).sum())],
            "prompts": [list(self.prompts.train), list(self.prompts.held_out)],
            "scorers": [s.fingerprint for s in [*self.scorers.rewards, *self.scorers.judges]],
        }


def parts_from_config(config: RunConfig) -> Parts:
    """Cheap checks come first. Raises UserError or MetricsError that names the wrong file or value."""
    from .dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline

    concept = config_concept(config)
    prompts = config_prompts(config, concept)
    device = pick_device(config.model.device)
    scorers = clip_scorers(config.scorers.rewards, config.scorers, concept, device)
    pipe = load_pipeline(config.model.path, device, config.model.lora, config.model.lora_strength)
    return Parts(concept, prompts, scorers, DiffusersTextToImage(pipe, config.train.precision))


def open_loop(config: RunConfig, parts: Parts, adapter: Adapter, resume: bool, progress: Progress, **more: object) -> Loop:
    """The loop in its run folder. `more`: further facts that a run to be resumed must agree in."""
    described = {"settings": config.loop().model_dump(mode="json"), **parts.described(), **more}
    run, concept = RunFolder(config.output), parts.concept
    loop = Loop(run, parts.model, adapter, parts.prompts, parts.scorers.rewards, parts.scorers.judges, config.loop(), progress)
    check_same_run(run, described, resume)
    keep_facts(loop, {"identifier": concept.identifier, "class_noun": concept.class_noun, "name": concept.subject}, concept)
    return loop


def loop_from_config(config: RunConfig, resume: bool, progress: Progress = silent) -> Loop:
    """Everything checked and loaded; nothing sampled yet."""
    parts = parts_from_config(config)
    return open_loop(config, parts, Adapter(parts.model.denoiser, config.adapter, seed=config.sampling.seed), resume, progress)


def evaluate_lora(config: RunConfig, lora: Path, resume: bool, progress: Progress = silent) -> dict:
    """Held-out pictures without and with a LoRA that `run` wrote, and the report into `config.output`; returns its numbers."""
    from .dpo_core.report.page import write_report
    from .dpo_core.training.lora_files import load_into_adapter

    parts = parts_from_config(config)
    adapter = Adapter(parts.model.denoiser, config.adapter, seed=config.sampling.seed)
    without = adapter.state()
    load_into_adapter(adapter, lora)  # before anything is sampled: it may be of another model
    trained = adapter.state()
    loop = open_loop(config, parts, adapter, resume, progress, lora=sha256(lora.read_bytes()).hexdigest()[:16])
    for round_index, state in enumerate((without, trained)):
        adapter.load(state)
        loop.evaluate(round_index)
    loop.run.set_fact("rounds", 1)
    return write_report(loop.run)


def sweep_lora(config: RunConfig, lora: Path, resume: bool, progress: Progress = silent) -> Sweep:
    """A LoRA that `run` wrote at the strengths of `config.strength`: curve.png, strip.png and strength.json in `config.output`.

    The LoRA is not changed. Raises UserError when it is of another model, rank, alpha or target choice.
    """
    from .dpo_core.loop.strength_sweep import sweep
    from .dpo_core.report.strength import strength_pictures
    from .dpo_core.training.lora_files import load_into_adapter

    parts = parts_from_config(config)
    adapter = Adapter(parts.model.denoiser, config.adapter, seed=config.sampling.seed)
    load_into_adapter(adapter, lora)  # before anything is sampled: it may be of another model
    loop = open_loop(config, parts, adapter, resume, progress, lora=sha256(lora.read_bytes()).hexdigest()[:16])
    found = sweep(loop)
    for name, picture in zip(("curve.png", "strip.png"), strength_pictures(loop.run), strict=True):
        with atomic_path(config.output / name) as beside:
            beside.write_bytes(picture.png)
    write_json(config.output / "strength.json", found.as_dict())
    return found


def photos_fidelity(fidelity: Scorer, concept: Concept) -> float:
    """What pictures of the concept in other places score: the held-out photos' mean, or each reference's against the others.

    A mean cosine with all n references holds a picture's own 1 when it is one of them; (n m - 1)/(n - 1) takes it out. With masks the
    references are cut out, and none equals a photo.
    """
    photos = concept.references if concept.held_out is None else concept.held_out
    mean, count = float(np.mean(fidelity.score(photos, [concept.subject] * len(photos)))), len(photos)
    own = concept.held_out is None and concept.masks is None and count > 1
    return (count * mean - 1) / (count - 1) if own else mean


def start_probe(prompts: PromptSet, sampling: SamplingSettings, scorers: Sequence[Scorer]) -> Probe:
    """Every second held-out prompt, three pictures each, seeds apart from those of candidates and evaluation."""
    from .dpo_core.training.dreambooth import Probe

    shown = [p for p in prompts.held_out[::2] for _ in range(3)]
    return Probe(shown, [derive_seed(55, i) for i in range(len(shown))], sampling, scorers)


def kept_start(folder: Path, described: dict) -> dict | None:
    """The record of a start made before, or None. Raises UserError when it was made with other settings."""
    record = folder / "start.json"
    if not (record.is_file() and (folder / "start.safetensors").is_file()):
        return None
    kept = json.loads(record.read_text(encoding="utf-8"))
    if changed := changes(kept.get("described", {}), described):
        raise UserError(f"{folder} holds a start with other settings: {', '.join(changed)}. Choose another folder with --out.")
    return kept


def save_start(folder: Path, adapter: Adapter, start: Start, described: dict) -> dict:
    """Write curve.png, start.safetensors and, last, the record start.json; returns the record."""
    from .dpo_core.report.plots.cloud import figure_image, path_figure

    record = {**asdict(start), "curve": [{"step": p.step, **p.scores} for p in start.curve], "described": described}
    with atomic_path(folder / "curve.png") as beside:
        figure_image(path_figure([], record["curve"])).save(beside)
    save_lora(adapter, folder / "start.safetensors", {"dreambooth_dpo.start": start.sentence})
    write_json(folder / "start.json", record)
    return record


def personalize_from_config(config: RunConfig, out: Path | None = None, progress: Progress = silent) -> tuple[Path, dict]:
    """DreamBooth LoRA of the config's model and photos: (its path, its record). A kept one of the same settings is not made again."""
    from .dpo_core.training.dreambooth import personalize

    folder = out or config.output.with_name(config.output.name + "_start")
    lora = folder / "start.safetensors"
    parts, settings = parts_from_config(config), config.personalize
    described = {"personalize": settings.model_dump(mode="json"), "sampling": config.sampling.described(), **parts.described()}
    if kept := kept_start(folder, described):
        return lora, kept
    adapter = Adapter(parts.model.denoiser, AdapterSettings(rank=settings.rank, alpha=settings.rank, targets="all"), seed=settings.seed)
    fidelity = next(s for s in parts.scorers.rewards if s.name == "fidelity")
    probe = start_probe(parts.prompts, config.sampling, parts.scorers.rewards)
    start = personalize(parts.model, adapter, parts.concept, settings, probe, photos_fidelity(fidelity, parts.concept), progress)
    return lora, save_start(folder, adapter, start, described)


def run_loop(loop: Loop, name: str = "dreambooth_dpo_lora") -> tuple[Path, dict]:
    """The whole loop, the LoRA and the report: (path of the LoRA, the report's numbers)."""
    from .dpo_core.report.page import write_report

    rounds = loop.go()
    lora = finish(loop, rounds, name)
    return lora, write_report(loop.run)


def quiet_libraries() -> None:
    """Let libraries' advice about their own files not drown what the user needs to read."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
