"""The runs of one concept in the method benchmark, each in a folder of its own. Cached results are used again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...dpo_core.evaluation.standings import standings
from ...dpo_core.evaluation.stop_rule import decide, kept_words
from ...dpo_core.json_values import finite, to_json
from ...dpo_core.run.files import write_json
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import LoopSettings, StopSettings
from ...dpo_core.statistics import by_prompt
from ...toybox.shipped import FEW_STEPS
from ..common.concepts import ALL_ROUNDS, EARLIER, cached, changed
from .reuse import ReusingLoop
from .rows import DEFAULT, WITHOUT_MASKS, Row, dreambooth_steps, row_forwards, rows
from .variety import ABOVE_WORLD, KINDS, above_world, among_right

UNSEEN = 2
"""Backgrounds that no training prompt names."""
CURVE = (0, 60, 120, 240, 480)
"""Steps of the DreamBooth curve, which ends at the compute of the loop."""


def run_concept(
    seed: int, out: Path, names: list[str], long: int, seeds: Sequence[int] = (0,), earlier: bool = False
) -> dict[int, dict]:
    """Every row of one concept, by seed of training: {training seed: {name: measures}}.

    long: rounds of the default and of constant_rate, or 0. seeds: of candidates, initial weights and training; start
    and held-out pictures are the same for all. The row dreambooth is run for the first one alone. earlier: rows are
    changes of the toybox's earlier settings.
    """
    folder, found = out / f"concept_{seed}", {}
    for training_seed in seeds:
        table, kept = seeded_rows(training_seed, earlier), found.setdefault(training_seed, {})
        for name in names:
            if name != "dreambooth":
                rounds = long if name in (DEFAULT, "constant_rate") else 0
                kept[name] = run_row(seed, folder, name, table, rounds)
            elif training_seed == seeds[0]:
                kept[name] = cached(folder / "dreambooth.json", lambda t=table: run_dreambooth(seed, folder, t))
            print(f"concept {seed}, seed {training_seed}: {name} done", flush=True)
    return found


def seeded_rows(training_seed: int, earlier: bool = False) -> dict[str, Row]:
    """All rows with another seed of candidates, initial weights and training; 0 is the usual one."""
    return rows(changed(EARLIER if earlier else ALL_ROUNDS, sampling={"seed": training_seed}))


def of_seed(name: str, settings: LoopSettings) -> str:
    """Name of a folder or file of a run: `name` for seed 0, else e.g. "nft_seed1"."""
    return f"{name}_seed{settings.sampling.seed}" if settings.sampling.seed else name


def row_loop(seed: int, path: Path, folder: Path, settings: LoopSettings, scorers=None):
    """The loop of a concept in `path`, on the start in its folder. scorers: in place of the toybox's own."""
    from ...toybox.concepts import concept_from_seed
    from ...toybox.run import start_of, toy_loop, toy_prompts

    toy = concept_from_seed(seed)
    start = start_of(toy, folder / "shared" / "start")
    return toy_loop(toy, path, start, settings, resume=True, prompts=toy_prompts(toy, UNSEEN), scorers=scorers)


def row_scorers(toy, reward: str):
    """Scorers of a row by its kind of reward. Where it is another one the plain scores are measured too, as
    plain_fidelity and plain_alignment.

    "mean of two" and "worst of two" train on the judge as well: in these rows only the oracle is independent.
    """
    from ...metrics.scorers import AlignmentScorer, FidelityScorer
    from ...metrics.sets import Scorers, reward_scorers
    from ...toybox.models import weights_folder
    from ...toybox.run import toy_scorers

    plain = toy_scorers(toy)
    if reward == "plain":
        return plain

    from ...metrics.augmented import AugmentedEmbedder
    from ...metrics.embedders import OpenClipEmbedder
    from ...metrics.patches import ByPatches
    from ...toybox.concepts import in_several_places

    concept, embedder = toy.to_concept(), OpenClipEmbedder(weights_folder("reward"))
    if reward in WITHOUT_MASKS:
        photos = in_several_places(toy) if reward.endswith("several") else toy
        bare = replace(photos.to_concept(), masks=None)
        marked = ByPatches(embedder) if reward.startswith("patches") else embedder
        measuring = FidelityScorer(embedder, concept.references, "plain_fidelity", concept.masks)
        return Scorers(reward_scorers(marked, bare), [*plain.judges, measuring])
    if reward != "augmented":
        two = [embedder, OpenClipEmbedder(weights_folder("judge"))]
        return Scorers(reward_scorers(two, concept), plain.judges)
    measuring = [
        FidelityScorer(embedder, concept.references, "plain_fidelity", concept.masks),
        AlignmentScorer(embedder, concept.without_identifier, "plain_alignment", concept.identifier),
    ]
    return Scorers(reward_scorers([AugmentedEmbedder(embedder)], concept), [*plain.judges, *measuring])


def copied(shared: Path, target: Path, drop_candidates: bool) -> None:
    """Copy the shared run folder to a row's, under a temporary name until it is complete."""
    if target.exists():
        return
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    skip = ("report", "start", *(["round_0"] if drop_candidates else []))
    shutil.copytree(shared, beside, ignore=shutil.ignore_patterns(*skip))
    with RunFolder(beside) as run:
        if drop_candidates:
            run.forget_set("round_0")
        run.set_fact("described", None)
    beside.rename(target)


def _measured(run: RunFolder, rounds: Sequence[int]) -> dict:
    """Mean over prompts of every score after each round: of all held-out pictures, and apart for contexts that training
    prompts name ("seen") and do not name ("unseen").
    """
    pictures = run.candidates("evaluation_0")
    prompt_of = np.asarray([c.prompt_index for c in pictures])
    unseen = np.isin([c.prompt for c in pictures], run.fact("unseen"))
    parts = {"all": np.ones(len(pictures), bool), "seen": ~unseen, "unseen": unseen}
    scores: dict = {}
    for name in run.fact("scorers"):
        values = [run.score_array(f"evaluation_{k}", name) for k in rounds]
        title = name.removeprefix("plain_")
        if f"plain_{name}" in run.fact("scorers"):
            title = f"own_{name}"
        scores[title] = {
            part: [float(by_prompt(v[chosen], prompt_of[chosen]).mean()) for v in values]
            for part, chosen in parts.items()
        }
    return {"rounds": list(rounds), "scores": scores}


def first_round(seed: int, folder: Path, settings: LoopSettings) -> Path:
    """The run folder that all rows begin from: the start, its held-out pictures and the first round's candidates."""
    shared = folder / of_seed("shared", settings)
    if not (shared / "done").is_file():
        loop = row_loop(seed, shared, folder, settings)
        loop.begin(0)
        loop.evaluate(0)
        loop.candidates(0)
        loop.run.close()
        (shared / "done").touch()
    return shared


def _stop_rule(loop, rounds: int) -> dict:
    """When the stop rule would have ended the run, and which round it would have kept. It is shown one more round at a
    time.
    """
    names = [s.name for s in [*loop.rewards, *loop.judges] if not s.name.startswith("plain_")]
    found = standings(loop.run, range(1, rounds + 1), names, loop.settings)
    for seen in range(1, rounds + 1):
        decision = decide(found[:seen], StopSettings(), loop.settings.train.winner_error_warning)
        if decision.stop or seen == rounds:
            return {
                "ended": seen,
                "standings": [to_json(s) for s in found],
                **to_json(decision),
                "words": kept_words(decision, found[:seen]),
            }
    return {}


def _loop_of_row(seed: int, folder: Path, name: str, settings: LoopSettings, table: dict[str, Row]):
    """The loop of a row in its own folder, begun from the shared start."""
    from ...toybox.concepts import concept_from_seed

    base, path = table[DEFAULT].settings, folder / of_seed(name, settings)
    shared = first_round(seed, folder, base)
    drawn = {"sampling", "prompt_parts"}
    copied(shared, path, drop_candidates=settings.model_dump(include=drawn) != base.model_dump(include=drawn))
    scorers = row_scorers(concept_from_seed(seed), table[name].reward)
    loop = row_loop(seed, path, folder, settings, scorers)
    if table[name].few_steps:
        loop.model.set_candidate_lora(FEW_STEPS, 1.0)
    return ReusingLoop(**vars(loop), kept=table[name].earlier) if table[name].earlier else loop


def row_candidates(seed: int, folder: Path, name: str, table: dict[str, Row]) -> Path:
    """The run folder of a row, with the first round's candidates drawn and scored."""
    loop = _loop_of_row(seed, folder, name, table[name].settings, table)
    loop.begin(0)
    loop.candidates(0)
    loop.run.close()
    return loop.run.path


def run_row(seed: int, folder: Path, name: str, table: dict[str, Row], rounds: int = 0) -> dict:
    """A row's measures after each round, cached as <name>.json (of a seed: `of_seed`).

    rounds: instead of the row's own number.

    {"rounds": [0, ...], "scores": {score: {"all" | "seen" | "unseen": [mean, ...]}}, "winner_alarms", "stopped",
    "image_forwards", "seconds"}
    """
    row, earlier = table[name], 0.0
    kept = folder / f"{of_seed(name, row.settings)}.json"
    settings = row.settings.model_copy(update={"rounds": rounds or row.settings.rounds})
    if kept.is_file():
        result = json.loads(kept.read_text(encoding="utf-8"))
        if len(result["rounds"]) > settings.rounds or result["stopped"]:
            return _with_variety(seed, kept, result)
        earlier = result["seconds"]  # goes on for more rounds
    begun = time.perf_counter()
    loop = _loop_of_row(seed, folder, name, settings, table)
    done = loop.go()
    result = {
        **_measured(loop.run, list(range(done + 1))),
        "stop": _stop_rule(loop, done),
        "winner_alarms": [max((r["winner_alarm"] for r in loop.run.training(k)), default=0.0) for k in range(done)],
        "stopped": loop.run.fact("stopped"),
        "image_forwards": row_forwards(replace(row, settings=settings), len(loop.prompts.train)),
        "seconds": earlier + time.perf_counter() - begun,
    }
    loop.run.close()
    return _with_variety(seed, kept, result)


def _with_variety(seed: int, kept: Path, result: dict) -> dict:
    """A row's measures with those of variety among right pictures, from its run folder; written to `kept`."""
    from ...dpo_core.backends.diffusers.model import DiffusersTextToImage
    from ...metrics.embedders import OpenClipEmbedder
    from ...toybox.concepts import concept_from_seed
    from ...toybox.models import weights_folder
    from ...toybox.run import toy_pipeline

    if not {*KINDS, ABOVE_WORLD} <= set(result["scores"]) and (folder := kept.with_suffix("")).is_dir():
        model = DiffusersTextToImage(toy_pipeline())
        with RunFolder(folder) as run:
            given = run, concept_from_seed(seed), result["rounds"], OpenClipEmbedder(weights_folder("judge"))
            result["scores"] |= finite(among_right(*given))
            result["scores"] |= finite(above_world(*given, lambda images: model.decode(model.encode_images(images))))
        write_json(kept, result)
    return result


def run_dreambooth(seed: int, folder: Path, table: dict[str, Row]) -> dict:
    """Longer DreamBooth: measures of the same held-out pictures after each of "steps".

    The last point is the start's steps plus as many as cost the compute of the loop.
    """
    from ...dpo_core.backends.diffusers.model import DiffusersTextToImage
    from ...dpo_core.loop.rounds import Loop
    from ...dpo_core.settings import AdapterSettings
    from ...dpo_core.training.adapter import Adapter
    from ...dpo_core.training.dreambooth import Personalizer
    from ...toybox.concepts import concept_from_seed
    from ...toybox.defaults import TOY_PERSONALIZE
    from ...toybox.run import start_of, toy_pipeline, toy_prompts

    toy, base, begun = concept_from_seed(seed), table[DEFAULT].settings, time.perf_counter()
    first_round(seed, folder, base)
    prompts, start = toy_prompts(toy, UNSEEN), start_of(toy, folder / "shared" / "start")[1]["step"]
    steps = sorted({*CURVE, start, start + dreambooth_steps(base, TOY_PERSONALIZE, len(prompts.train))})
    model, scorers = DiffusersTextToImage(toy_pipeline()), row_scorers(toy, "plain")
    adapter = Adapter(
        model.denoiser, AdapterSettings(rank=TOY_PERSONALIZE.rank, alpha=TOY_PERSONALIZE.rank), TOY_PERSONALIZE.seed
    )
    with RunFolder(folder / "dreambooth") as run:
        loop = Loop(run, model, adapter, prompts, scorers.rewards, scorers.judges, base)
        run.set_fact("scorers", dict.fromkeys(s.name for s in [*scorers.rewards, *scorers.judges]))
        run.set_fact("unseen", list(prompts.unseen))
        trainer, done = Personalizer(model, adapter, toy.to_concept(), TOY_PERSONALIZE), 0
        for number, step in enumerate(steps):
            trainer.train(done, step, lambda *_: None)
            loop.evaluate(number)
            done = step
        measures = _measured(run, list(range(len(steps))))
    return {**measures, "steps": steps, "start": start, "seconds": time.perf_counter() - begun}
