"""A VAE that gives NaN is an error, not black pictures."""

from __future__ import annotations

import pytest
import torch
from models import tiny_text_to_image

from dreambooth_dpo.dpo_core.errors import UserError


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_refused(value: float) -> None:
    model = tiny_text_to_image()
    next(p for p in reversed(list(model.pipe.vae.decoder.parameters()))).data.fill_(value)
    with pytest.raises(UserError, match="the VAE gives NaN or infinity for the pixels"):
        model.decode(torch.zeros(2, 4, 16, 16))
