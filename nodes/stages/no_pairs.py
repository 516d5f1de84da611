"""Pairs that are none: a rule that nothing fits."""

from __future__ import annotations

from ...dpo_core.pairs.build import NoPairs, check_pairs
from ...dpo_core.run.folder import RunFolder
from ..sockets import Pairs


def lacking(pairs: Pairs) -> str | None:
    """Why these pairs are none, and what to do; None where there are some."""
    with RunFolder(pairs.scored.candidates.folder) as run:
        try:
            check_pairs(run, pairs.name)
        except NoPairs as none:
            return str(none)
    return None
