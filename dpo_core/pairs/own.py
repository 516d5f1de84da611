"""A person's own pairs in a run: encoded by the model's VAE, stored as candidates and pairs, and mixed by a weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..concept import Concept
from ..errors import UserError
from ..progress import Progress, silent
from ..prompts import fill
from ..protocols import TextToImage
from ..records import Candidate, Pair
from ..run.folder import RunFolder
from ..run.images import read_picture
from .own_files import OwnPairs

CHUNK = 4
"""Pairs that are encoded at once."""


@dataclass(frozen=True)
class Own:
    """Own pairs that go with a list of pairs: the name of their set, and visits of one for each of an automatic one."""

    set_name: str
    weight: float


def store_own_pairs(
    run: RunFolder,
    own: OwnPairs,
    model: TextToImage,
    concept: Concept,
    size: tuple[int, int],
    progress: Progress = silent,
) -> str:
    """Encode own pairs that the run does not have yet, and store them as candidates and pairs; returns their set.

    Candidates 2i and 2i + 1 are winner and loser of pair i. size: (width, height) of the run's pictures; others are
    cropped around the centre and resized, as reference photos are. Raises UserError where the two pictures of a pair
    become the same, and for a prompt with a wrong placeholder.
    """
    name = f"own_{own.mark}_{size[0]}x{size[1]}_{model.fingerprint[:12]}"
    prompts = [fill(pair.prompt, concept) if "{" in pair.prompt else pair.prompt for pair in own.pairs]
    index = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    done = run.chunks(name)
    for chunk, first in enumerate(range(0, len(own.pairs), CHUNK)):
        if chunk in done:
            continue
        part = range(first, min(first + CHUNK, len(own.pairs)))
        members = [
            Candidate(2 * i + side, index[prompts[i]], prompts[i], 0, chunk, 2 * (i - first) + side)
            for i in part
            for side in (0, 1)
        ]
        pixels = np.stack([read_picture(f, *size) for i in part for f in (own.pairs[i].winner, own.pairs[i].loser)])
        for i in part:
            if np.array_equal(*pixels[2 * (i - first) : 2 * (i - first) + 2]):
                raise UserError(
                    f"{own.pairs[i].winner} and {own.pairs[i].loser} are the same picture at {size[0]}x{size[1]}: "
                    "neither is better. Take the pair out."
                )
        run.add_chunk(name, members, model.encode_images(pixels), pixels)
        progress(f"encode {name}", part[-1] + 1, len(own.pairs), pixels)
    run.set_pairs(name, [Pair(2 * i, 2 * i + 1, 0.0, 0.0) for i in range(len(own.pairs))])
    return name


def use_own(run: RunFolder, pairs_name: str, own: Own | None) -> None:
    """Train on these own pairs together with the pairs `pairs_name`; None: on the latter alone."""
    if own is not None or run.fact(f"own_{pairs_name}") is not None:
        run.set_fact(f"own_{pairs_name}", None if own is None else {"set": own.set_name, "weight": own.weight})


def own_of(run: RunFolder, pairs_name: str) -> Own | None:
    """The own pairs that go with the pairs `pairs_name`, if any."""
    stored = run.fact(f"own_{pairs_name}")
    return Own(stored["set"], stored["weight"]) if isinstance(stored, dict) else None


def own_prompts(run: RunFolder, pairs_name: str) -> list[str]:
    """The prompts of the own pairs that go with the pairs `pairs_name`, each once."""
    own = own_of(run, pairs_name)
    return list(dict.fromkeys(c.prompt for c in run.candidates(own.set_name))) if own else []
