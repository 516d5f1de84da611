"""The toybox's trained models, and the oracle as scorers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..dpo_core.errors import UserError
from .concepts import ToyConcept
from .oracle import ORACLE_VERSION, Oracle, Verdict
from .shipped import PARTS, WEIGHTS
from .world import PLACEMENT_SPREAD

ORACLE_TITLES = {
    "oracle_all_right": "All right (oracle)",
    "oracle_background": "Background right (oracle)",
    "oracle_body": "Body colour right (oracle)",
    "oracle_belly": "Belly colour right (oracle)",
    "oracle_hat": "Hat right (oracle)",
    "oracle_spread": "Variety of place and size (oracle)",
}


def weights_folder(part: str, root: Path = WEIGHTS) -> Path:
    """Folder of one trained part. Raises UserError, with the command that makes it, when it is missing."""
    if part not in PARTS:
        raise UserError(f"toybox part {part!r} does not exist; choose one of {PARTS}.")
    folder = root / part
    if not folder.is_dir():
        raise UserError(
            f"toybox weights {folder} are missing. Restore them from the repository, "
            "or train them: python -m dreambooth_dpo.toybox.train all"
        )
    return folder


class _Judged:
    """Caches the oracle's verdicts for the last images, because five scorers ask about the same ones."""

    def __init__(self, concept: ToyConcept) -> None:
        self.concept, self.oracle = concept, Oracle()
        self._key, self._verdict = b"", None

    def verdict(self, images: np.ndarray, prompts: Sequence[str]) -> Verdict:
        key = hashlib.sha256(images.tobytes() + "\n".join(prompts).encode()).digest()
        if key != self._key or self._verdict is None:
            self._key, self._verdict = key, self.oracle.judge(images, [self.concept.scene_for(p) for p in prompts])
        return self._verdict


class OracleScorer:
    """1.0 where the pixels show what the prompt asks for, else 0.0; a Scorer."""

    def __init__(self, judged: _Judged, name: str) -> None:
        self.name, self._judged = name, judged
        concept = judged.concept
        self.fingerprint = f"oracle-{ORACLE_VERSION}-{concept.noun}-{concept.body}-{concept.belly}"

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        verdict = self._judged.verdict(images, prompts)
        part = self.name.removeprefix("oracle_")
        return np.asarray(verdict.all_right if part == "all_right" else getattr(verdict, part), np.float64)


class SpreadScorer:
    """How differently the images of a prompt place their subject; a Scorer.

    Prompts leave the placement open, so unlike the Vendi score this does not count mistakes as variety. Each image gets
    its prompt's root mean square of the standard deviations of x, y and size, each in units of the world's own: 1 = as
    varied as the world, 0 = all alike. A call must contain all images of a prompt; a prompt with one image gets 0.
    """

    def __init__(self, concept: ToyConcept, name: str = "oracle_spread") -> None:
        self.name, self._noun, self._oracle = name, concept.noun, Oracle()
        self.fingerprint = f"spread-1-{ORACLE_VERSION}-{concept.noun}"

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        places = self._oracle.placements(images, [self._noun] * len(images)) / PLACEMENT_SPREAD
        values = np.zeros(len(images))
        for prompt in dict.fromkeys(prompts):
            chosen = np.asarray([p == prompt for p in prompts])
            if chosen.sum() > 1:
                values[chosen] = np.sqrt(places[chosen].var(axis=0, ddof=1).mean())
        return values


def oracle_scorers(concept: ToyConcept) -> list[OracleScorer | SpreadScorer]:
    """Scorers of "all right", of each attribute, and of the spread of placements."""
    judged = _Judged(concept)
    return [*(OracleScorer(judged, name) for name in ORACLE_TITLES if name != "oracle_spread"), SpreadScorer(concept)]
