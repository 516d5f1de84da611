"""A person's own pairs in a loop: read once, encoded once, and trained on in every round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..concept import Concept
from ..config import OwnPairsConfig
from ..pairs.own import Own, store_own_pairs, use_own
from ..pairs.own_files import OwnPairs, doubts, find_own_pairs
from ..progress import Progress
from ..protocols import TextToImage
from ..run.folder import RunFolder
from ..run.images import warn
from ..settings import SamplingSettings


@dataclass(frozen=True)
class OwnInput:
    """Checked own pairs, the concept that their prompts may name, and their weight."""

    pairs: OwnPairs
    concept: Concept
    weight: float

    def add(
        self, run: RunFolder, pairs_name: str, model: TextToImage, sampling: SamplingSettings, progress: Progress
    ) -> None:
        """Train on them together with the pairs `pairs_name`. Raises UserError as `store_own_pairs` does."""
        size = sampling.width, sampling.height
        name = store_own_pairs(run, self.pairs, model, self.concept, size, progress)
        use_own(run, pairs_name, Own(name, self.weight))


def read_own_pairs(
    given: OwnPairsConfig | None, concept: Concept, sampling: SamplingSettings, say: Callable[[str], None] = warn
) -> OwnInput | None:
    """The own pairs of a config, found and checked; `say` gets how many, and of which sizes. None where none are given.

    Raises UserError as `find_own_pairs` does.
    """
    if given is None:
        return None
    found = find_own_pairs(given.source, given.prompt)
    for line in [found.sentence(sampling.width, sampling.height), *doubts(found.pairs, concept.subject)]:
        say(line)
    return OwnInput(found, concept, given.weight)


def described_own(own: OwnInput | None) -> dict[str, list]:
    """What a run with own pairs depends on besides, as plain JSON; {} without them, as for runs of older versions."""
    return {} if own is None else {"own_pairs": [own.pairs.mark, own.weight]}
