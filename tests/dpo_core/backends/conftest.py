"""Fixture: the model of the backend tests, in both prediction types."""

from __future__ import annotations

import pytest
from models import tiny_text_to_image

from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage

KINDS = ("epsilon", "v_prediction")


@pytest.fixture(scope="module", params=KINDS)
def model(request) -> DiffusersTextToImage:
    return tiny_text_to_image(request.param)


@pytest.fixture(scope="module")
def eps_model() -> DiffusersTextToImage:
    return tiny_text_to_image()
