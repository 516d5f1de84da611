"""The pool of a prompt's candidates beyond the fresh ones of the model as loaded.

Other LoRA strengths and the reference photos, after MagicID's hybrid pool (arXiv 2503.12689), which pairs pictures of
the personalized model, of the base model and the references themselves; and the candidates of rounds before. All of it
is off by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..concept import Concept
from ..errors import UserError
from ..protocols import TextToImage
from ..records import Candidate
from ..run.folder import RunFolder
from ..settings import SamplingSettings


@dataclass(frozen=True, eq=False)
class Photos:
    """Reference photos uint8 [r, H, W, 3] at the run's size, and the prompt that they are candidates of."""

    caption: str
    images: np.ndarray = field(repr=False)


def photos_of(concept: Concept, settings: SamplingSettings) -> Photos | None:
    """The photos for `settings.photo_candidates`, at the size of the settings; None where that is off.

    The photos fit no prompt of the list: their caption is that of DreamBooth, "a photo of a <subject>", and says
    nothing of the rest. A photo that occurs twice is taken once.
    """
    if not settings.photo_candidates:
        return None
    from ..run.images import fitted

    different = list({photo.tobytes(): photo for photo in concept.references}.values())
    images = np.stack([fitted(photo, settings.width, settings.height) for photo in different])
    return Photos(concept.caption, images)


def check_pool(model: TextToImage, settings: SamplingSettings, photos: Photos | None = None) -> None:
    """Raises UserError where a model cannot draw with the settings' LoRA strengths, or where photos are missing."""
    if settings.lora_spread or settings.base_candidates:
        why = getattr(model, "fixed_strength", "this model's LoRA strength cannot be changed")
        if why:
            name = "lora_spread" if settings.lora_spread else "base_candidates"
            raise UserError(
                f"{name} is {getattr(settings, name):g}, but {why}. Load the subject as a LoRA on its base model, or "
                f"set {name} to 0."
            )
    if settings.photo_candidates and photos is None:
        raise UserError("photo_candidates is on, but no reference photos are given. Turn it off.")


def at_strength(model: TextToImage, strength: float) -> AbstractContextManager:
    """Context in which `model` draws with the user's LoRA at this multiple of its strength."""
    return nullcontext() if strength == 1 else model.at_lora_strength(strength)


def for_candidates(model: TextToImage) -> AbstractContextManager:
    """Context in which `model` draws candidates: with its LoRA for candidates, if it has one."""
    return model.for_candidates() if hasattr(model, "for_candidates") else nullcontext()


def in_batches(candidates: Sequence[Candidate], size: int) -> list[Candidate]:
    """The candidates with chunk and row set: batches of up to `size` of one LoRA strength, then photos, then those of
    earlier rounds.

    Strengths come in the order of their first candidate, so with one strength batches are those of the positions.
    """
    groups: dict[tuple[bool, bool, float], list[int]] = {}
    for i, c in enumerate(candidates):
        groups.setdefault((c.earlier is not None, c.photo is not None, c.strength), []).append(i)
    planned, chunk = list(candidates), 0
    for _, members in sorted(groups.items(), key=lambda item: item[0][:2]):  # stable: strengths keep their order
        for number, i in enumerate(members):
            planned[i] = replace(planned[i], chunk=chunk + number // size, row=number % size)
        chunk += -(-len(members) // size)
    return planned


def batches_of(planned: Sequence[Candidate]) -> list[list[Candidate]]:
    """The planned candidates by batch, each in the order of its rows."""
    batches: list[list[Candidate]] = [[] for _ in range(max(c.chunk for c in planned) + 1)]
    for candidate in planned:
        batches[candidate.chunk].append(candidate)
    return batches


def of_rounds_before(run: RunFolder, sets: Sequence[str], prompts: Sequence[str]) -> list[Candidate]:
    """The candidates that were sampled for these sets and prompts, each marked as `earlier`: those of the first set
    first. Those that a set itself took from an earlier one are left out, and photos too.
    """
    return [
        replace(c, earlier=(name, c.position))
        for name in sets
        for c in run.candidates(name)
        if c.sampled and c.prompt in prompts
    ]


def taken_over(run: RunFolder, members: Sequence[Candidate]) -> tuple[torch.Tensor, np.ndarray]:
    """Latents float32 [b, C, h, w] and pictures uint8 [b, H, W, 3] of candidates of earlier rounds, as stored."""
    sources, found = [c.earlier for c in members if c.earlier is not None], {}
    for name in {name for name, _ in sources}:
        places = [place for of, place in sources if of == name]
        stored = zip(run.latents(name, places), run.images(name, places), strict=True)
        found |= {(name, place): both for place, both in zip(places, stored, strict=True)}
    latents, images = zip(*(found[source] for source in sources), strict=True)
    return torch.stack(latents), np.stack(images)


def encoded_photos(
    model: TextToImage, photos: Photos | None, members: Sequence[Candidate]
) -> tuple[torch.Tensor, np.ndarray]:
    """Latents float32 [b, C, h, w] of the photos that a batch is, and the photos uint8 [b, H, W, 3].

    Raises UserError without the photos.
    """
    if photos is None:
        raise UserError("this set holds reference photos as candidates, but none are given. Turn photo_candidates on.")
    images = photos.images[[c.photo for c in members]]
    return model.encode_images(images), images
