"""The rule, fixed beforehand, that trains an under-fitted start on."""

from __future__ import annotations

import pytest

from dreambooth_dpo.dpo_core.training.dreambooth import is_under_fitted


@pytest.mark.parametrize(
    ("fidelity", "untrained", "photos", "share", "under"),
    [
        # From 0.25 to the photos' 0.75 is 0.5; half of the way is 0.5 in all, exactly reached in the second line.
        (0.49, 0.25, 0.75, 0.5, True),
        (0.50, 0.25, 0.75, 0.5, False),
        (0.51, 0.25, 0.75, 0.5, False),
        (0.25, 0.25, 0.75, 0.5, True),
        (0.10, 0.25, 0.75, 0.5, True),
        (0.74, 0.25, 0.75, 1.0, True),
        (0.80, 0.25, 0.75, 1.0, False),
        # Asking for no rise still refuses a fall.
        (0.25, 0.25, 0.75, 0.0, False),
        (0.20, 0.25, 0.75, 0.0, True),
        # Photos that score no better than the untrained model: any real rise will do, none will not.
        (0.26, 0.25, 0.25, 0.5, False),
        (0.26, 0.25, 0.10, 0.5, False),
        (0.25, 0.25, 0.10, 0.5, True),
    ],
)
def test_the_rule_by_hand(fidelity, untrained, photos, share, under):
    assert is_under_fitted(fidelity, untrained, photos, share) is under
