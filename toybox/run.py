"""Runs the whole method on a toybox concept: personalize, train in rounds, report."""

from __future__ import annotations

from pathlib import Path

from ..dpo_core.backends.diffusers.quiet import quiet_libraries
from ..dpo_core.config import ScorerConfig
from ..dpo_core.loop.facts import keep_facts
from ..dpo_core.loop.rounds import Loop
from ..dpo_core.loop.start import kept_start, photos_fidelity, save_start, start_probe
from ..dpo_core.progress import Progress, silent
from ..dpo_core.prompts import PromptSet, fill
from ..dpo_core.run.folder import RunFolder
from ..dpo_core.run.same_run import check_same_run
from ..dpo_core.sampling.pool import photos_of
from ..dpo_core.settings import AdapterSettings, LoopSettings, PersonalizeSettings
from ..dpo_core.training.adapter import Adapter
from ..dpo_core.training.dreambooth import personalize
from ..metrics.from_folders import clip_scorers
from ..metrics.sets import Scorers, about_scorers, by_questions
from .concepts import ToyConcept, concept_from_seed
from .defaults import TOY_PERSONALIZE, TOY_SETTINGS
from .models import ORACLE_TITLES, oracle_scorers, weights_folder
from .prompts import train_and_held_out, with_unseen_contexts
from .stand_in import StandInAnswerer


def toy_prompts(toy: ToyConcept, unseen: int = 0) -> PromptSet:
    """Prompts of a toybox concept, with every background and hat in both halves.

    `unseen`: number of backgrounds that are held out only.
    """
    concept = toy.to_concept()
    if unseen:
        train, held_out, never = ([fill(t, concept) for t in part] for part in with_unseen_contexts(toy, unseen))
        return PromptSet(tuple(train), (*held_out, *never), tuple(never))
    train, held_out = train_and_held_out(toy)
    return PromptSet(tuple(fill(t, concept) for t in train), tuple(fill(t, concept) for t in held_out))


def toy_scorers(toy: ToyConcept, device: str = "cpu", augment: bool = False, questions: bool = False) -> Scorers:
    """Reward scorers (with `augment` the mean over views of an image), judge, guards, and the oracle as a judge.

    questions: alignment is judged by questions to the stand-in for a vision-language model, not by the CLIP judge.
    """
    config = ScorerConfig(reward=weights_folder("reward"), judge=weights_folder("judge"), augment=augment)
    scorers = clip_scorers(config.rewards, config, toy.to_concept(), device)
    judges = [*scorers.judges, *oracle_scorers(toy)]
    if questions:
        others = [judge for judge in judges if judge.name != "judge_alignment"]
        judges = [by_questions(StandInAnswerer(toy.noun), toy.to_concept()), *others]
    return Scorers(scorers.rewards, judges)


def toy_pipeline(device: str = "cpu", lora: Path | None = None):
    """The toybox's pipeline, with a LoRA merged in if one is given.

    Sets torch to one CPU thread, which is fastest at this size.
    """
    import torch

    from ..dpo_core.backends.diffusers.model import load_pipeline

    quiet_libraries()
    torch.set_num_threads(1)
    return load_pipeline(weights_folder("pipeline"), device, lora)


_NOT_OF_THE_START = {"candidates_per_prompt": 10, "candidate_steps": 0, "candidate_guidance": None}
"""What shapes no start, as the records of earlier starts have it."""


def start_of(
    toy: ToyConcept,
    folder: Path,
    settings: PersonalizeSettings = TOY_PERSONALIZE,
    loop: LoopSettings = TOY_SETTINGS,
    device: str = "cpu",
    progress: Progress = silent,
) -> tuple[Path, dict]:
    """Personalize the base model to a concept; return the LoRA's path and its record (curve, sentence on the stop).

    A start that exists is reused.
    """
    from ..dpo_core.backends.diffusers.model import DiffusersTextToImage

    lora = folder / "start.safetensors"
    scorers, concept = toy_scorers(toy, device), toy.to_concept()
    described = {
        "personalize": settings.model_dump(mode="json"),
        "sampling": loop.sampling.model_copy(update=_NOT_OF_THE_START).described(),
        "concept": toy.seed,
        "scorers": [s.fingerprint for s in scorers.rewards],
    }
    if kept := kept_start(folder, described):
        return lora, kept
    model = DiffusersTextToImage(toy_pipeline(device))
    adapter = Adapter(
        model.denoiser, AdapterSettings(rank=settings.rank, alpha=settings.rank, targets="all"), seed=settings.seed
    )
    fidelity = next(s for s in scorers.rewards if s.name == "fidelity")
    oracle = [s for s in scorers.judges if s.name == "oracle_all_right"]
    probe = start_probe(toy_prompts(toy), loop.sampling, [*scorers.rewards, *oracle])
    start = personalize(model, adapter, concept, settings, probe, photos_fidelity(fidelity, concept), progress)
    return lora, save_start(folder, adapter, start, described)


def toy_loop(
    toy: ToyConcept,
    folder: Path,
    start: tuple[Path, dict],
    settings: LoopSettings,
    resume: bool,
    device: str = "cpu",
    progress: Progress = silent,
    prompts: PromptSet | None = None,
    scorers: Scorers | None = None,
) -> Loop:
    """The loop of a toybox concept on its personalized start, ready to run.

    `prompts` and `scorers` replace the usual ones.
    """
    from ..dpo_core.backends.diffusers.model import DiffusersTextToImage

    lora, record = start
    model = DiffusersTextToImage(toy_pipeline(device, lora), settings.train.precision)
    model.set_loras({lora: 1.0})
    scorers, prompts = scorers or toy_scorers(toy, device), prompts or toy_prompts(toy)
    run = RunFolder(folder)
    described = {
        "settings": settings.model_dump(mode="json"),
        "model": model.fingerprint,
        "concept": toy.seed,
        "scorers": scorers.fingerprints,
    }
    check_same_run(run, described, resume)
    adapter = Adapter(model.denoiser, settings.adapter, seed=settings.sampling.seed)
    photos = photos_of(toy.to_concept(), settings.sampling)
    loop = Loop(run, model, adapter, prompts, scorers.rewards, scorers.judges, settings, progress, photos=photos)
    fact = {"identifier": toy.identifier, "class_noun": toy.noun, "name": toy.describe(), "seed": toy.seed}
    keep_facts(loop, fact, toy.to_concept(), about_scorers(loop, ORACLE_TITLES))
    run.set_fact("dreambooth_curve", record["curve"])
    run.set_fact("start", {k: v for k, v in record.items() if k != "curve"})
    return loop


def demo_loop(
    seed: int, folder: Path, settings: LoopSettings = TOY_SETTINGS, resume: bool = False, progress: Progress = silent
) -> Loop:
    """Personalize concept `seed` and build its loop, all in one folder."""
    toy = concept_from_seed(seed)
    return toy_loop(
        toy,
        folder,
        start_of(toy, folder / "start", loop=settings, progress=progress),
        settings,
        resume,
        progress=progress,
    )
