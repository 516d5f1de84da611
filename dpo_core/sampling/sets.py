"""Sampling stage: sample the candidates of a set batch by batch, resuming where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain

import numpy as np
import torch

from ..crew import ALONE, Crew
from ..errors import UserError
from ..progress import Progress, silent
from ..protocols import TextToImage
from ..records import Candidate
from ..run.folder import RunFolder
from ..seeds import derive_seed
from ..settings import SamplingSettings
from .free_memory import FALLBACK_BATCH, Meter, meter_for, pictures_that_fit
from .picture_check import CHECK_AFTER, PictureCheck, check_first
from .pool import (
    Photos,
    at_strength,
    batches_of,
    encoded_photos,
    for_candidates,
    in_batches,
    of_rounds_before,
    taken_over,
)


def plan(
    prompts: Sequence[str],
    per_prompt: int,
    seed: int,
    salt: int,
    chunk_size: int,
    strengths: Sequence[float] = (),
    photos: Photos | None = None,
    earlier: Sequence[Candidate] = (),
) -> list[Candidate]:
    """All candidates of a set, prompt by prompt, each with a noise seed derived from (seed, salt, number).

    The number counts sampled candidates, so nothing else shifts a seed. `chunk_size`: candidates per batch. strengths:
    of the user's LoRA, for each candidate of a prompt; () for 1. photos: candidates of the prompt `photos.caption`,
    which is added as the last if it is not among the prompts. earlier: candidates of earlier rounds, which join those
    of their prompt. Raises UserError when there are no prompts.
    """
    if not prompts:
        raise UserError("the prompt list is empty: nothing to sample. Add prompts.")
    listed, planned = list(prompts), []
    if photos is not None and photos.caption not in listed:
        listed.append(photos.caption)
    for index, prompt in enumerate(listed):
        for j in range(per_prompt):
            noise = derive_seed(seed, salt, index * per_prompt + j)
            strength = strengths[j] if strengths else 1.0
            planned.append(Candidate(len(planned), index, prompt, noise, 0, 0, strength))
        for photo in range(len(photos.images) if photos is not None and prompt == photos.caption else 0):
            planned.append(Candidate(len(planned), index, prompt, 0, 0, 0, photo=photo))
        for old in (c for c in earlier if c.prompt == prompt):
            planned.append(replace(old, position=len(planned), prompt_index=index))
    return in_batches(planned, chunk_size)


def sample_set(
    run: RunFolder,
    set_name: str,
    model: TextToImage,
    prompts: Sequence[str],
    per_prompt: int,
    settings: SamplingSettings,
    seed: int,
    salt: int,
    progress: Progress = silent,
    compared: bool = False,
    crew: Crew = ALONE,
    photos: Photos | None = None,
    before: Sequence[str] = (),
) -> None:
    """Plan a set from prompts, counts and seeds, and sample its missing candidates. Raises UserError as `draw_set`.

    compared: as in `draw_set`; the pool's settings (LoRA strengths, photos) apply to such sets alone. before: sets of
    earlier rounds, whose candidates of the same prompts join, unchanged.
    """
    strengths = settings.strengths(per_prompt) if compared else ()
    photos = photos if compared and settings.photo_candidates else None
    listed = [*prompts, photos.caption] if photos is not None else prompts
    earlier = of_rounds_before(run, before, listed)
    planned = plan(prompts, per_prompt, seed, salt, settings.chunk_size, strengths, photos, earlier)
    draw_set(run, set_name, model, planned, settings, progress, compared, crew, photos)


def draw_set(
    run: RunFolder,
    set_name: str,
    model: TextToImage,
    planned: Sequence[Candidate],
    settings: SamplingSettings,
    progress: Progress = silent,
    compared: bool = False,
    crew: Crew = ALONE,
    photos: Photos | None = None,
) -> None:
    """Sample the missing candidates of a planned set.

    Each finished batch is committed as a whole. The plan fixes the batches, so a resumed set equals an uninterrupted
    one. compared: the candidates are for pairs, so the picture check applies. Raises UserError when the set on disk has
    another plan (prompts, counts, seeds or batch size) or the run's first pictures are empty, and NothingToCompare when
    the pictures cannot be compared; that batch is not stored. Compared ones are drawn with the model's LoRA for
    candidates. crew: who draws; inside `crew.drawing` with the adapter that `model` has. photos: those that planned
    candidates are; this process encodes them.
    """
    _check_stored(run, set_name, planned)
    done, sampler, check = run.chunks(set_name), BatchSampler(model, settings, compared), PictureCheck()
    first, batches = not run.has_candidates(), batches_of(planned)
    missing = [members for n, members in enumerate(batches) if n not in done]
    chunks = [members for members in missing if members[0].sampled]
    drawn = crew.draw(chunks, (settings, compared), sampler.sample_batch)
    others = (
        encoded_photos(model, photos, members) if members[0].photo is not None else taken_over(run, members)
        for members in missing[len(chunks) :]
    )
    for members, (latents, images) in zip(missing, chain(drawn, others), strict=True):
        check.look(members, images)
        if first:  # the first pictures of a run: a broken VAE shows here, before hours are spent
            check_first(images)
            first = False
        if compared and (check.seen >= CHECK_AFTER or members is batches[-1]):
            check.refuse()
        run.add_chunk(set_name, members, latents, images)
        note = f"{len(check.flat)} nearly all of one colour" if check.flat else ""
        so_far = sum(c.earlier is None for batch in batches[: members[0].chunk + 1] for c in batch)
        progress(f"sample {set_name}", so_far, sum(c.earlier is None for c in planned), images, note)


def pictures(
    model: TextToImage, prompts: Sequence[str], seeds: Sequence[int], settings: SamplingSettings
) -> np.ndarray:
    """Pictures of n prompts and noise seeds, uint8 [n, H, W, 3], sampled as for a set but not stored."""
    size, sampler = settings.chunk_size, BatchSampler(model, settings)
    listed = [Candidate(i, i, p, s, i // size, i % size) for i, (p, s) in enumerate(zip(prompts, seeds, strict=True))]
    return np.concatenate(
        [sampler.sample_batch(listed[first : first + size])[1] for first in range(0, len(listed), size)]
    )


class BatchSampler:
    """Samples batches in parts that fit into memory.

    A part that runs out of memory is halved, and later batches keep the smaller size. When free memory decides the
    size (batch_size 0), it is decided once: from the host's estimate, else from the memory that a first part of one
    picture took, else it is FALLBACK_BATCH. candidates: draws with the model's LoRA for candidates.
    """

    def __init__(self, model: TextToImage, settings: SamplingSettings, candidates: bool = False) -> None:
        self.model, self.settings, self.candidates = model, settings, candidates
        self.part_size: int | None = settings.batch_size or None
        self.meter: Meter | None = None

    def _decide(self) -> int:
        """Size of the first part.

        With a meter it is one picture, whose memory then decides the size of the others.
        """
        most = self.settings.chunk_size
        known = self.model.pictures_at_once(self.settings, most)
        if known is None:
            self.meter = meter_for(self.model.device)
            known = 1 if self.meter else min(FALLBACK_BATCH, most)
        return known

    def sample_batch(self, members: Sequence[Candidate]) -> tuple[torch.Tensor, np.ndarray]:
        """Latents float32 [b, C, h, w] and pictures uint8 [b, H, W, 3] of one batch, which has one LoRA strength.

        Raises UserError when a single picture does not fit into memory, or latents are not finite.
        """
        drawn_by = for_candidates(self.model) if self.candidates else nullcontext()
        with at_strength(self.model, members[0].strength), drawn_by:
            return self._sample_parts(members)

    def _sample_parts(self, members: Sequence[Candidate]) -> tuple[torch.Tensor, np.ndarray]:
        if self.part_size is None:
            self.part_size = self._decide()
        parts: list[tuple[torch.Tensor, np.ndarray]] = []
        sampled = 0
        while sampled < len(members):
            part = members[sampled : sampled + self.part_size]
            made = self._part(part)
            if made is None:
                # Not in the exception handler: there the traceback still holds the tensors of the failed call.
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                self.part_size = len(part) // 2
            else:
                parts.append(made)
                sampled += len(part)
        latents, images = zip(*parts, strict=True)
        return torch.cat(latents), np.concatenate(images)

    def _part(self, members: Sequence[Candidate]) -> tuple[torch.Tensor, np.ndarray] | None:
        """Latents and pictures of one part; None when it runs out of memory and can be halved."""
        try:
            latents = self._sample(members)
            _check_finite(latents, members)
            return latents, self.model.decode(latents)
        except torch.OutOfMemoryError as error:
            if len(members) == 1:
                raise UserError(
                    f"one picture of {self.settings.width}x{self.settings.height} does not fit into memory. "
                    "Choose a smaller size, or free memory."
                ) from error
            return None

    def _sample(self, members: Sequence[Candidate]) -> torch.Tensor:
        """Latents [n, C, h, w]. The meter measures sampling only, since backends decode in parts of their own."""
        meter, self.meter = self.meter, None
        if meter:
            meter.start()
        latents = self.model.sample([c.prompt for c in members], [c.seed for c in members], self.settings)
        if meter:
            self.part_size = pictures_that_fit(meter.free(), meter.taken() / len(members), self.settings.chunk_size)
        return latents


def _check_finite(latents: torch.Tensor, members: Sequence[Candidate]) -> None:
    """Raises UserError, with prompt and seed, when a latent is not finite."""
    if not bool(torch.isfinite(latents).all()):
        bad = members[int((~torch.isfinite(latents)).flatten(1).any(1).nonzero()[0])]
        raise UserError(
            f"the model gave NaN or infinity for prompt {bad.prompt!r}, seed {bad.seed}. "
            "Lower the guidance, or check the model and its precision."
        )


def _check_stored(run: RunFolder, set_name: str, planned: Sequence[Candidate]) -> None:
    """Raises UserError when a candidate stored in the run differs from the plan."""
    for stored in run.candidates(set_name):
        if stored.position >= len(planned) or planned[stored.position] != stored:
            raise UserError(
                f"{run.path} already holds other candidates in {set_name!r} (position {stored.position}: prompt "
                f"{stored.prompt!r}, seed {stored.seed}). Prompts, counts, seed or batch size have changed: choose a "
                "new output folder, or use the old settings to resume."
            )
