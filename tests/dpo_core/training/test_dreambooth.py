"""The rule that decides whether a personalized model is under-fitted."""

from __future__ import annotations

import pytest

from dreambooth_dpo.dpo_core.training.dreambooth import is_under_fitted


@pytest.mark.parametrize(
    ("fidelity", "untrained", "photos", "share", "under"),
    [
        # From 0.25 to the photos' 0.75 with share 0.5: the limit is 0.50, reached exactly in the second line.
        (0.49, 0.25, 0.75, 0.5, True),
        (0.50, 0.25, 0.75, 0.5, False),
        (0.51, 0.25, 0.75, 0.5, False),
        (0.25, 0.25, 0.75, 0.5, True),
        (0.10, 0.25, 0.75, 0.5, True),
        (0.74, 0.25, 0.75, 1.0, True),
        (0.80, 0.25, 0.75, 1.0, False),
        # With share 0 a fall is still under-fitted.
        (0.25, 0.25, 0.75, 0.0, False),
        (0.20, 0.25, 0.75, 0.0, True),
        # Photos that score no better than the untrained model: any rise is enough, none is not.
        (0.26, 0.25, 0.25, 0.5, False),
        (0.26, 0.25, 0.10, 0.5, False),
        (0.25, 0.25, 0.10, 0.5, True),
    ],
)
def test_the_rule_by_hand(fidelity, untrained, photos, share, under):
    assert is_under_fitted(fidelity, untrained, photos, share) is under
