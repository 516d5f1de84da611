"""Runs of a benchmark on several toybox concepts: one process per concept, cached results, common settings."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from ...dpo_core.records import Pair
from ...dpo_core.run.files import write_json
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import LoopSettings, StopSettings
from ...toybox.defaults import TOY_SETTINGS

TRUTH = "oracle_all_right"
"""The oracle's score of a picture in which everything is right: 0 or 1."""
ALL_ROUNDS = TOY_SETTINGS.model_copy(update={"stop": StopSettings(rule="last")})
"""The toybox's settings without early stopping: methods are compared after all of their rounds."""
EARLIER_VALUES: dict[str, dict] = {
    "sampling": {"candidates_per_prompt": 10, "candidate_steps": 0},
    "pairs": {"diversity": 0.0},
    "train": {"learning_rate": 2e-4, "loser_guard": None},
}
"""Of the toybox's settings as they were before 2026-12, with which most tables of docs/quality.md were measured."""


def changed(base: LoopSettings, rounds: int | None = None, **groups: Mapping) -> LoopSettings:
    """`base` with other values in the named groups, e.g. changed(base, train={"steps": 20})."""
    update = {name: getattr(base, name).model_copy(update=dict(values)) for name, values in groups.items()}
    return base.model_copy(update={**update, "rounds": rounds or base.rounds})


EARLIER = changed(ALL_ROUNDS, **EARLIER_VALUES)


def by_concept(call: Callable[..., Any], concepts: Sequence[int], jobs: int, *arguments: object) -> dict[int, Any]:
    """{concept: call(concept, *arguments)}, each in a process of its own with one thread, `jobs` at a time.

    `call` must not be defined in a `__main__.py`, which a new process does not import.
    """
    found: dict[int, Any] = {}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_in_one_thread, call, concept, *arguments): concept for concept in concepts}
        for done in as_completed(waiting):
            found[waiting[done]] = done.result()
            print(f"concept {waiting[done]}: done ({len(found)} of {len(waiting)})", flush=True)
    return dict(sorted(found.items()))


def _in_one_thread(call: Callable[..., Any], *arguments: object) -> Any:
    import torch

    torch.set_num_threads(1)
    return call(*arguments)


def cached(path: Path, compute: Callable[[], Any]) -> Any:
    """The JSON in `path`; computed and written if it is not there."""
    if not path.is_file():
        write_json(path, compute())
    return json.loads(path.read_text(encoding="utf-8"))


def truth_of_candidates(
    run: RunFolder, name: str, oracles: Iterable[Any], judged: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """{oracle's name: 0 or 1 per candidate of a set, float [n]}; NaN for those not in `judged` (None: all are)."""
    drawn = run.candidates(name)
    places = list(range(len(drawn))) if judged is None else list(judged)
    images, prompts = run.images(name, places), [drawn[i].prompt for i in places]
    found = {}
    for oracle in oracles:
        found[oracle.name] = np.full(len(drawn), np.nan)
        found[oracle.name][places] = oracle.score(images, prompts)
    return found


def members(pairs: Sequence[Pair]) -> tuple[list[int], list[int]]:
    """Positions of the winners and of the losers."""
    return [p.winner for p in pairs], [p.loser for p in pairs]
