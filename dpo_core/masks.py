"""Checks of subject masks: the share of a photo that a mask covers, and whether its white is the subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from .errors import UserError

Side = Literal["subject", "background", "unclear"]
LEAST, MOST = 0.01, 0.99
"""Shares of a photo between which a mask is taken: a subject of less or more than that is a mistake."""
_ODDS = 0.5
"""Least difference in log odds of white between the inside and the border that decides."""
GREY = 128
"""Grey level of the plane that a cut-out subject is put on."""


def white(mask: np.ndarray) -> np.ndarray:
    """Where a mask uint8 [..., H, W] is white: bool, value >= 128."""
    return mask >= 128


def share(mask: np.ndarray) -> float:
    """Share (0..1) of a mask uint8 [H, W] that is white."""
    return float(white(mask).mean())


def sides(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Share (0..1) of white along the top, bottom, left and right border of a mask uint8 [H, W]."""
    seen = white(mask)
    return tuple(float(line.mean()) for line in (seen[0], seen[-1], seen[:, 0], seen[:, -1]))


def shows(mask: np.ndarray) -> Side:
    """What the white of a mask uint8 [H, W] is, judged by what touches the borders.

    A background surrounds its subject: it is more frequent along the border than inside, a subject less. By hand, with
    a share of 0.5 for every side and inside, as for a mask whose right half is white, the log odds are equal: unclear.
    White along the whole border and 0.9 inside: log(0.9 / 0.1) - log(0.999 / 0.001) = 2.20 - 6.91 = -4.71: background.
    Where the odds do not decide, what leaves two borders more alone than the other does is the subject (in a corner).
    """
    border, inside = float(np.mean(sides(mask))), share(mask[1:-1, 1:-1] if min(mask.shape) > 2 else mask)
    low, high = 1e-3, 1 - 1e-3
    odds = [float(np.log(p / (1 - p))) for p in np.clip((inside, border), low, high)]
    difference = odds[0] - odds[1]
    if difference > _ODDS or border <= low:
        return "subject"
    if (difference < -_ODDS or border >= high) and border >= 0.5:
        return "background"
    free = sum(side == 0 for side in sides(mask)) - sum(side == 1 for side in sides(mask))
    return "subject" if free >= 2 else "background" if free <= -2 else "unclear"


def surrounds(mask: np.ndarray) -> bool:
    """Whether white is the background beyond doubt: it also is at least half of each of the four borders."""
    return shows(mask) == "background" and min(sides(mask)) >= 0.5


def absurd(mask: np.ndarray) -> str | None:
    """Why a mask uint8 [H, W] cannot show a subject, or None: it is white nowhere or everywhere, or nearly so."""
    covered = share(mask)
    if LEAST <= covered <= MOST:
        return None
    if not white(mask).any():
        return "shows no subject: no pixel is white. Paint the subject white and the rest black."
    if covered < LEAST:
        return (
            f"covers only {percent(covered)} of its photo, too little for a subject. Paint the whole subject white, or "
            "crop photo and mask around it."
        )
    return (
        f"covers {percent(covered)} of its photo, so it separates nothing. Paint the background black, or use no masks."
    )


def percent(value: float) -> str:
    """A share as text: "41 %", "0.3 %", "99.7 %"."""
    of = 100 * value
    return f"{of:.0f} %" if 1 <= of <= 99 or of in (0, 100) else f"{of:.2g} %" if of < 1 else f"{of:.1f} %"


def shares(names: Sequence[str], masks: Sequence[np.ndarray]) -> str:
    """One sentence: how much of its photo each mask covers."""
    return "masks cover " + ", ".join(f"{percent(share(m))} of {n}" for n, m in zip(names, masks, strict=True))


def on_grey(photos: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Photos uint8 [n, H, W, 3] with all that is outside their masks uint8 [n, H, W] replaced by grey."""
    part = masks[..., None].astype(np.float32) / 255
    return np.rint(part * photos + (1 - part) * GREY).astype(np.uint8)


def oriented(masks: np.ndarray, given: str = "auto") -> tuple[np.ndarray, str]:
    """Masks uint8 [n, H, W] with the subject white, and what was done ("" if nothing).

    given: what is white, "subject" or "background"; "auto" judges all masks together by what touches their borders.
    Raises UserError for masks that contradict each other, or of which none can be judged.
    """
    if given == "subject":
        return masks, ""
    if given == "background":
        return 255 - masks, "masks inverted: mask_shows is 'background'"
    votes = [shows(mask) for mask in masks]
    ask = "Set mask_shows to 'subject' if their white is the subject, or to 'background' if it is what surrounds it."
    if "subject" in votes and "background" in votes:
        which = {side: ", ".join(str(i + 1) for i, v in enumerate(votes) if v == side) for side in votes}
        raise UserError(
            f"masks contradict each other: in mask {which['subject']} white seems to be the subject, in mask "
            f"{which['background']} the background. {ask} All masks must be of one kind; Invert Mask changes one."
        )
    if "background" in votes:
        return 255 - masks, "masks inverted: white was the background, as Load Image gives for cut-outs"
    if "subject" not in votes:
        raise UserError(
            f"masks: it cannot be told whether white is the subject, as it touches the borders as much as it fills the "
            f"middle. {ask}"
        )
    return masks, ""
