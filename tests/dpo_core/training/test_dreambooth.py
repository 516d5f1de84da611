"""The rule that decides whether a personalized model is under-fitted."""

from __future__ import annotations

import pytest

from dreambooth_dpo.dpo_core.training.dreambooth import CurvePoint, _sentence, is_under_fitted


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


@pytest.mark.parametrize(
    ("photos", "said"),
    [
        (0.75, "(photos of the concept in other places score 0.750)."),
        (
            None,
            "(one reference photo: fidelity has no scale, as nothing says how alike other photos of the subject are).",
        ),
    ],
)
def test_the_sentence_names_the_scale_or_that_there_is_none(photos, said):
    """A single photo once scored 1.000 "in other places", as it was compared with itself."""
    curve = [CurvePoint(0, {"fidelity": 0.25}), CurvePoint(8, {"fidelity": 0.5})]
    assert _sentence(curve, 8, False, False, photos) == f"Personalized in 8 steps: fidelity 0.250 -> 0.500 {said}"
    assert is_under_fitted(0.1, 0.25, photos, 0.5) is (photos is not None)
