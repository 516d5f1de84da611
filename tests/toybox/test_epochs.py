"""Tests the points at which a personalization is saved."""

from __future__ import annotations

import pytest

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.toybox.epochs import points


def test_points_are_even_and_the_last_is_the_end():
    assert points(480, 4) == (120, 240, 360, 480)
    assert points(10, 3) == (3, 7, 10)
    assert points(3, 3) == (1, 2, 3)


def test_more_epochs_than_steps_are_refused():
    with pytest.raises(UserError, match="4 epochs of 3 steps in all: an epoch needs a step"):
        points(3, 4)
