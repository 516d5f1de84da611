"""The comparison benchmark's arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dreambooth_dpo.benchmarks.compare import ranks, spearman, summary
from dreambooth_dpo.dpo_core.evaluation.compare import WITHOUT


def test_ranks_and_spearman_by_hand():
    """Ranks 1 2 3 4 and 2 1 4 3: differences 1 1 1 1, so 1 - 6 * 4 / (4 * 15) = 0.6."""
    assert ranks(np.array([10, 30, 30, 20])).tolist() == [1, 3.5, 3.5, 2]
    assert spearman(np.arange(4), np.array([2.0, 1, 4, 3])) == pytest.approx(0.6)
    assert spearman(np.arange(5), -(np.arange(5) ** 3)) == pytest.approx(-1)
    assert math.isnan(spearman(np.arange(3), np.ones(3)))


def test_the_summary_leaves_the_model_itself_out_of_the_correlations():
    places = [
        {"name": name, "gain": gain, "fidelity": gain, "alignment": -gain, "truth": truth}
        for name, gain, truth in (
            ("step_2", 2.0, 0.5),
            ("step_3", 1.0, 0.4),
            (WITHOUT, 0.0, 0.9),
            ("step_1", -1.0, 0.1),
        )
    ]
    found = summary({"places": places, "best": "step_2"})
    assert (found["gain"], found["alignment"]) == (pytest.approx(1), pytest.approx(-1))
    assert (found["chosen"], found["highest"], found["last"], found["without"]) == (0.5, 0.5, 0.4, 0.9)
    assert found["mean"] == pytest.approx(1 / 3)
