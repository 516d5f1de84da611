"""Settings of the subject's photos: how many are held out, and how each becomes a square."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Settings, Widget


class PhotoSettings(Settings):
    """What is done to the photos of a subject."""

    held_out: Annotated[int, Widget()] = Field(
        0,
        ge=0,
        le=100,
        description="How many of the photos are held out, the last ones in order of name. They must be photos that "
        "your model was not trained on: a guard then tells likeness from copying. Unit: photos.",
    )
    crop: Annotated[Literal["subject", "centre", "pad"], Widget()] = Field(
        "subject",
        description="How a photo becomes a square. subject: around the subject of its mask or alpha, with some room; "
        "without a mask, the centre. centre: the largest square in the middle. pad: the whole photo, on grey.",
    )
    size: Annotated[int, Widget(advanced=True)] = Field(
        512,
        ge=64,
        le=2048,
        multiple_of=8,
        description="Side of the squares that photos are brought to. Scorers reduce them further. Unit: pixels.",
    )
