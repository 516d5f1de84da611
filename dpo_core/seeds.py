"""Seeds derived from a base seed and a place, so that no draw depends on the order of work."""

from __future__ import annotations

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """A 31-bit seed from non-negative integers; different parts give independent seeds (NumPy's SeedSequence).

    Trailing zeros do not count: (5,) and (5, 0) give the same seed, so places must differ before them.
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0]) & 0x7FFFFFFF


def generator(*parts: int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed`: the same numbers on every device."""
    return torch.Generator().manual_seed(derive_seed(*parts))
