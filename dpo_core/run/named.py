"""A run folder of ComfyUI's nodes, read under the names of a headless run.

The nodes name sets, pairs and trainings by hashes of what they were made with, so that several loops share a folder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..json_values import from_json, to_json
from ..records import Candidate, Pair
from .folder import RunFolder

FACT = "loop"
_OF_PAIRS, _OF_SET = ("yield_", "window_", "no_pairs_"), ("told_",)


@dataclass(frozen=True)
class LoopNames:
    """Names of one loop in its run folder, by those of a headless run ("evaluation_0", "round_0", "fidelity").

    trainings: folders under <run>/training, by round. facts: the facts that a headless run would hold.
    """

    sets: dict[str, str]
    scorers: dict[str, str]
    pairs: dict[str, str]
    trainings: tuple[str, ...]
    facts: dict[str, Any]
    at: float = 0.0
    """When the last round was measured. Unit: seconds since 1970."""


def keep_names(run: RunFolder, names: LoopNames) -> None:
    """Store the names of the loop that was measured last."""
    run.set_fact(FACT, to_json(replace(names, at=time.time())))


def read_names(run: RunFolder) -> LoopNames | None:
    """The names of the loop that was measured last in a run folder of the nodes; None where there is none."""
    stored = RunFolder.fact(run, FACT)
    return None if stored is None else from_json(LoopNames, stored)


class NamedRun(RunFolder):
    """The loop that was measured last in a run folder of the nodes, for reading.

    Raises UserError where there is none.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        names = read_names(self)
        if names is None:
            self.close()
            raise UserError(
                f"{path} holds no measured round, so there is nothing to report. Run DPO Rounds with keep = best, or "
                "a Keep Best Round."
            )
        self.names: LoopNames = names

    def fact(self, name: str) -> object | None:
        for beginnings, known in ((_OF_PAIRS, self.names.pairs), (_OF_SET, self.names.sets)):
            for beginning in beginnings:
                if name.startswith(beginning):
                    own = known.get(name.removeprefix(beginning))
                    return super().fact(beginning + own) if own else None
        return self.names.facts.get(name)

    def folder(self, set_name: str) -> Path:
        return super().folder(self._set(set_name))

    def candidates(self, set_name: str) -> list[Candidate]:
        return super().candidates(self._set(set_name))

    def chunks(self, set_name: str) -> set[int]:
        return super().chunks(self._set(set_name))

    def scores(self, set_name: str, scorer: str, fingerprint: str | None = None) -> dict[int, float]:
        return super().scores(self._set(set_name), self._scorer(scorer), fingerprint)

    def score_marks(self, set_name: str, scorer: str) -> set[str]:
        return super().score_marks(self._set(set_name), self._scorer(scorer))

    def score_array(self, set_name: str, scorer: str) -> np.ndarray:
        return super().score_array(self._set(set_name), self._scorer(scorer))

    def pairs(self, set_name: str) -> list[Pair]:
        return super().pairs(self.names.pairs.get(set_name, set_name))

    def training(self, round_index: int) -> list[dict]:
        """Records of a round; none for one that is not of this loop."""
        if round_index >= len(self.names.trainings):
            return []
        with RunFolder(self.path / "training" / self.names.trainings[round_index]) as inner:
            return inner.training(0)

    def _set(self, name: str) -> str:
        return self.names.sets.get(name, name)

    def _scorer(self, name: str) -> str:
        return self.names.scorers.get(name, name)
