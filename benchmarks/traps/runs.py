"""One concept's runs with wrong rewards, each in a folder of its own. Cached results are used again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...dpo_core.evaluation.stop_rule import SATURATION_OFF
from ...dpo_core.report.numbers import collect, read_evaluations
from ...dpo_core.report.words import answer
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.statistics import by_prompt
from ...toybox.defaults import TOY_SETTINGS
from ..common.concepts import ALL_ROUNDS, EARLIER, EARLIER_VALUES, TRUTH, cached, changed
from ..methods.runs import copied, first_round, row_loop
from .faults import FAULTS, Fault, Faulty, features


def run_concept(
    seed: int, out: Path, traps: Sequence[tuple[str, float]], earlier: bool = False, unguarded: bool = False
) -> dict[str, dict]:
    """Each trap (name, strength) of one concept: {"place at 1": measures, ...}.

    earlier: with the earlier settings. unguarded: without the guard of colour saturation.
    """
    folder, found = out / f"concept_{seed}", {}
    for name, strength in traps:
        title = f"{name} at {strength:g}"
        path = folder / title.replace(" ", "_")
        found[title] = cached(
            path.with_suffix(".json"), lambda p=path, n=name, s=strength: run_trap(seed, p, n, s, earlier, unguarded)
        )
        print(f"concept {seed}: {title} done", flush=True)
    return found


def run_trap(seed: int, path: Path, name: str, strength: float, earlier: bool = False, unguarded: bool = False) -> dict:
    """A whole run with early stopping on a wrong reward, and what its report says without the oracle."""
    begun = time.perf_counter()
    settings = changed(TOY_SETTINGS, **EARLIER_VALUES) if earlier else TOY_SETTINGS
    if unguarded:
        settings = changed(settings, stop={"saturation_rise": SATURATION_OFF})
    shared = first_round(seed, path.parent, EARLIER if earlier else ALL_ROUNDS)
    copied(shared, path, drop_candidates=False)
    loop = row_loop(seed, path, path.parent, settings, faulty_scorers(seed, shared, FAULTS[name], strength))
    loop.go()
    loop.run.close()
    with RunFolder(path) as run:
        return {**judged(run), "seconds": time.perf_counter() - begun}


def faulty_scorers(seed: int, shared: Path, fault: Fault, strength: float):
    """The toybox's scorers with the fault in the rewards of its axes, and in the judge where it is shared; without the
    judge where the fault says so.
    """
    from ...metrics.embedders import OpenClipEmbedder
    from ...metrics.sets import Scorers
    from ...toybox.concepts import concept_from_seed
    from ...toybox.models import weights_folder
    from ...toybox.run import toy_scorers

    toy = concept_from_seed(seed)
    plain, known = toy_scorers(toy), features(toy, OpenClipEmbedder(weights_folder("reward")))
    with RunFolder(shared) as run:
        candidates, images = run.candidates("round_0"), run.images("round_0")
    prompts, prompt_of = [c.prompt for c in candidates], np.asarray([c.prompt_index for c in candidates])
    wrong = dict(fault.features) | ({f"judge_{axis}": f for axis, f in fault.features} if fault.shared else {})

    def with_fault(scorer):
        if scorer.name not in wrong:
            return scorer
        feature = wrong[scorer.name]
        return Faulty(scorer, known[feature], strength, f"{feature} {strength:g}", images, prompts, prompt_of)

    judges = plain.judges if fault.judged else without_judge(plain.judges)
    return Scorers([with_fault(s) for s in plain.rewards], [with_fault(s) for s in judges])


def without_judge(judges):
    """The scorers that only measure, without those of the judge."""
    return [scorer for scorer in judges if not scorer.name.startswith("judge_")]


def judged(run: RunFolder) -> dict:
    """Kept round, truth (share of all-right pictures) after each round, and status and headline as a user would read
    them, who has no oracle; the same sentences that report, node and terminal show.
    """
    found = read_evaluations(run)
    numbers = {k: v for k, v in collect(run, found).items() if not k.startswith("oracle_")}
    said = answer(numbers, {k: v for k, v in found.scorers.items() if not k.startswith("oracle_")})
    prompt_of = found.prompt_of
    truth = [float(by_prompt(found.values[k, TRUTH], prompt_of).mean()) for k in found.rounds]
    kept = (run.fact("kept") or {}).get("kept", found.rounds[-1])
    measures = {n: numbers[n]["gain"] for n in numbers if isinstance(numbers[n], dict) and "gain" in numbers[n]}
    return {
        "kept": kept, "truth": truth, "start": truth[0], "end": truth[found.rounds.index(kept)],
        "status": said.status, "headline": said.headline, "answer": said.text, "gains": measures,
        "watch": run.fact("watch") or [],
    }  # fmt: skip
