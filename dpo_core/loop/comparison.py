"""Draws, scores and ranks several LoRAs on the held-out prompts of a run folder, in either host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..evaluation.compare import WITHOUT, Comparison, compare
from ..evaluation.held_out import HeldOutPlan
from ..json_values import to_json
from ..progress import Progress, silent
from ..protocols import TextToImage
from ..run.folder import RunFolder
from ..settings import StopSettings

if TYPE_CHECKING:
    from .rounds import Loop


@dataclass(frozen=True)
class Entry:
    """A LoRA file at one strength, under the name that tables show; `digest`: of the file's bytes, 16 hex digits."""

    file: Path
    strength: float
    name: str
    digest: str


def entries(given: Sequence[tuple[Path, float]]) -> list[Entry]:
    """LoRA files at their strengths, in the order given.

    Names are file names; where two are equal, with their folders, and with the strength where there are several. Raises
    UserError where two files hold the same LoRA, or for a strength of 0, which is the model without a LoRA.
    """
    if any(strength == 0 for _, strength in given):
        raise UserError(f"strength 0 is the model {WITHOUT}, which is always measured. Leave it out.")
    files = list(dict.fromkeys(file for file, _ in given))
    digests = [sha256(file.read_bytes()).hexdigest()[:16] for file in files]
    for number, digest in enumerate(digests):
        if (first := digests.index(digest)) < number:
            raise UserError(f"{files[number]} holds the same LoRA as {files[first]}. Name each LoRA once.")
    stems = [file.stem for file in files]
    names = [
        f"{file.parent.name}/{file.stem}" if stems.count(file.stem) > 1 else file.stem for file in files
    ]  # fmt: skip
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    named, marked = dict(zip(files, names, strict=True)), dict(zip(files, digests, strict=True))
    many = len({strength for _, strength in given}) > 1
    return [
        Entry(file, strength, f"{named[file]} at {strength:g}" if many else named[file], marked[file])
        for file, strength in given
    ]


def compare_sets(
    run: RunFolder,
    plan: HeldOutPlan,
    sets: Mapping[str, str],
    models: Mapping[str, AbstractContextManager[TextToImage]],
    stop: StopSettings,
    resamples: int,
    progress: Progress = silent,
) -> Comparison:
    """Draw what is missing of each set, score it, and rank.

    sets: set name by model name, `compare.WITHOUT` among them; models: by set name, see `HeldOutPlan.measure`.
    """
    measured = plan.measure(run, models, progress)
    scores = {name: measured.of(kept) for name, kept in sets.items()}
    return compare(scores, measured.prompt_of, stop, resamples)


def compare_models(
    loop: Loop, sets: Mapping[str, str], models: Mapping[str, AbstractContextManager[TextToImage]]
) -> Comparison:
    """`compare_sets` by a loop's settings and held-out prompts; stores the facts "comparison" and "compared".

    At least two pictures of a prompt are drawn, because a gain is in units of their spread.
    """
    settings = loop.settings
    plan = loop.held_out(max(2, settings.evaluation.seeds_per_prompt))
    found = compare_sets(
        loop.run, plan, sets, models, settings.stop, settings.evaluation.bootstrap, loop.progress
    )  # fmt: skip
    loop.run.set_fact("comparison", to_json(found))
    loop.run.set_fact("compared", dict(sets))
    return found


def whole(run: RunFolder, name: str, prompts: int, seeds_per_prompt: int) -> bool:
    """Whether every picture of a set is there already, so that nothing has to be loaded to draw it."""
    return len(run.candidates(name)) == prompts * seeds_per_prompt
