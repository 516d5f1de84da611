"""Runs without a host: model, scorers, prompts and loop put together on diffusers, from a config or for a toybox concept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dpo_core.adapter import Adapter
from .dpo_core.concept import Concept
from .dpo_core.config import RunConfig, ScorerConfig
from .dpo_core.errors import UserError
from .dpo_core.images import read_photos
from .dpo_core.lora_files import save_lora
from .dpo_core.progress import Progress, silent
from .dpo_core.prompts import PromptSet, fill, read_templates, split
from .dpo_core.protocols import Scorer
from .dpo_core.rounds import Loop
from .dpo_core.run_folder import RunFolder

ROLES = {
    "fidelity": ("reward", "Fidelity", True),
    "alignment": ("reward", "Alignment", True),
    "judge_fidelity": ("judge", "Fidelity (judge)", True),
    "judge_alignment": ("judge", "Alignment (judge)", True),
    "copy_paste": ("guard", "Copy-paste", False),
    "diversity": ("guard", "Diversity within a prompt (Vendi)", True),
}


@dataclass(frozen=True)
class Scorers:
    """Rewards train; judges only measure."""

    rewards: list[Scorer]
    judges: list[Scorer]


def pick_device(name: str) -> str:
    """ "auto" -> cuda, mps or cpu, as the machine has it. Raises UserError for a device that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {name!r} is not available: this torch sees no GPU. Use cpu, or install a torch build for your GPU.")
    return name


def clip_scorers(reward_folder: Path, judge: ScorerConfig | None, concept: Concept, device: str = "cpu") -> Scorers:
    """Fidelity and alignment by the reward model; the same by the judge if one is given; guards by the judge, else the reward model."""
    from .metrics.embedders import DinoV2Embedder, OpenClipEmbedder
    from .metrics.guards import CopyPasteScorer, DiversityScorer
    from .metrics.scorers import AlignmentScorer, FidelityScorer

    embedder = OpenClipEmbedder(reward_folder, device=device)
    strip = concept.without_identifier
    rewards = [FidelityScorer(embedder, concept.references), AlignmentScorer(embedder, strip)]
    judges: list[Scorer] = []
    watch = embedder
    if judge and judge.judge:
        kind = DinoV2Embedder if judge.judge_kind == "dinov2" else OpenClipEmbedder
        watch = kind(judge.judge, device=device)
        judges.append(FidelityScorer(watch, concept.references, name="judge_fidelity"))
        if judge.judge_kind == "open_clip":
            judges.append(AlignmentScorer(watch, strip, name="judge_alignment"))
    if concept.held_out is not None:
        judges.append(CopyPasteScorer(watch, concept.held_out, concept.references))
    return Scorers(rewards, [*judges, DiversityScorer(watch)])


def check_same_run(run: RunFolder, described: dict, resume: bool) -> None:
    """A run folder holds one run: the same settings go on (with resume), others are refused by name."""
    kept = run.fact("described")
    if kept is None:
        run.set_fact("described", described)
        return
    changed = sorted(k for k in {*kept, *described} if kept.get(k) != described.get(k))
    if changed:
        raise UserError(
            f"{run.path} holds a run with other settings; changed: {', '.join(changed)}. Choose another output folder, or take the old settings."
        )
    if not resume:
        raise UserError(f"{run.path} already holds this run. Add --resume to go on from where it stands, or choose another output folder.")


def keep_facts(loop: Loop, concept_fact: dict, concept: Concept, titles: dict[str, str] | None = None) -> None:
    """What the report needs to know about a run."""
    from PIL import Image

    run = loop.run
    scorers = {}
    for scorer in [*loop.rewards, *loop.judges]:
        role, title, higher = ROLES.get(scorer.name, ("oracle", (titles or {}).get(scorer.name, scorer.name), True))
        scorers[scorer.name] = {"role": role, "title": title, "higher_is_better": higher}
    run.set_fact("settings", loop.settings.model_dump(mode="json"))
    run.set_fact("concept", concept_fact)
    run.set_fact("scorers", scorers)
    run.set_fact("unseen", list(loop.prompts.unseen))
    run.set_fact("references", len(concept.references))
    folder = run.path / "references"
    folder.mkdir(exist_ok=True)
    for i, pixels in enumerate(concept.references):
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")


def finish(loop: Loop, rounds: int, name: str) -> Path:
    """Write the LoRA of the adapter as it stands and the report; returns the LoRA's path."""
    path = loop.run.path / f"{name}.safetensors"
    concept = loop.run.fact("concept")
    save_lora(loop.adapter, path, {"dreambooth_dpo.rounds": str(rounds), "dreambooth_dpo.concept": str(concept)})
    return path


def config_concept(config: RunConfig) -> Concept:
    size = (config.sampling.width, config.sampling.height)
    held_out = read_photos(config.concept.held_out, *size, "held-out photos") if config.concept.held_out else None
    return Concept(config.concept.identifier, config.concept.class_noun, read_photos(config.concept.references, *size), held_out)


def config_prompts(config: RunConfig, concept: Concept) -> PromptSet:
    templates = read_templates(config.prompts)
    if config.held_out_prompts is None:
        return split(templates, concept)
    held_out = [fill(t, concept) for _, t in read_templates(config.held_out_prompts)]
    return PromptSet(tuple(dict.fromkeys(fill(t, concept) for _, t in templates)), tuple(dict.fromkeys(held_out)))


def loop_from_config(config: RunConfig, resume: bool, progress: Progress = silent) -> Loop:
    """Everything checked and loaded; nothing sampled yet. Cheap checks come first."""
    from .dpo_core.backends.diffusers import DiffusersTextToImage, load_pipeline

    concept = config_concept(config)
    prompts = config_prompts(config, concept)
    device = pick_device(config.model.device)
    scorers = clip_scorers(config.scorers.reward, config.scorers, concept, device)
    pipe = load_pipeline(config.model.path, device, config.model.lora, config.model.lora_strength)
    model = DiffusersTextToImage(pipe, config.train.precision)
    run = RunFolder(config.output)
    described = {
        "settings": config.loop().model_dump(mode="json"),
        "model": model.fingerprint,
        "concept": [concept.identifier, concept.class_noun, int(concept.references.astype(np.int64).sum())],
        "prompts": [list(prompts.train), list(prompts.held_out)],
        "scorers": [s.fingerprint for s in [*scorers.rewards, *scorers.judges]],
    }
    check_same_run(run, described, resume)
    adapter = Adapter(model.denoiser, config.adapter, seed=config.sampling.seed)
    loop = Loop(run, model, adapter, prompts, scorers.rewards, scorers.judges, config.loop(), progress)
    keep_facts(loop, {"identifier": concept.identifier, "class_noun": concept.class_noun, "name": concept.subject}, concept)
    return loop


def run_loop(loop: Loop, name: str = "dreambooth_dpo_lora") -> tuple[Path, dict]:
    """The whole loop, the LoRA and the report: (path of the LoRA, the report's numbers)."""
    from .dpo_core.report import write_report

    rounds = loop.go()
    lora = finish(loop, rounds, name)
    return lora, write_report(loop.run)


def quiet_libraries() -> None:
    """Let libraries' advice about their own files not drown what the user needs to read."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
