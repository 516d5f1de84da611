"""Handles without any pair: the pair rule found none, or all were rejected."""

from __future__ import annotations

from ...dpo_core.pairs.build import NoPairs, check_pairs
from ...dpo_core.run.folder import RunFolder
from ..sockets import Pairs


def lacking(pairs: Pairs) -> str | None:
    """Why there are no pairs, and what to do about it; None if there are pairs."""
    with RunFolder(pairs.scored.candidates.folder) as run:
        try:
            check_pairs(run, pairs.name)
        except NoPairs as none:
            return str(none)
    return None
