"""The report's section on the strength dial."""

from __future__ import annotations

from ..errors import UserError
from ..evaluation.strength import Sweep
from ..run.folder import RunFolder
from .pictures import Picture
from .plots.cloud import figure_image
from .plots.strength import strength_figure, strength_strip
from .words import measurers


def strength_pictures(run: RunFolder) -> list[Picture]:
    """Curve ("strength") and strip ("strength_strip") of a run that was swept; none of another.

    Raises UserError for a lost picture.
    """
    kept = run.fact("strength")
    if not kept or not kept["points"]:
        return []
    found = Sweep.from_dict(kept)
    prompts = len({c.prompt_index for c in run.candidates(found.sets[0])})
    caption = (
        f"Each strength on the same {prompts} held-out prompts and seeds; 95 % intervals over prompts. Gain: mean of both axes by "
        f"{measurers(run.fact('scorers') or {})} against strength 0, in standard deviations within prompts. The strength with the highest "
        "lower bound is recommended, unless a guard fell there. It was chosen on these prompts, so its own interval is a little too kind."
    )
    curve = Picture(
        "strength", figure_image(strength_figure(found.points, found.value)), "scores and gain by strength", caption
    )
    try:
        strip = strength_strip(run, found)
    except OSError as error:
        raise UserError(
            f"a picture of the strength sweep in {run.path} cannot be read ({error}). Put it back, or start again in a new output folder."
        ) from error
    words = "Held-out prompts evenly spaced over the list, the first seed of each: one noise a row. Nothing was chosen for its looks."
    return [curve, Picture("strength_strip", strip, "held-out pictures by strength", words)]


def strength_warnings(run: RunFolder) -> list[str]:
    """What speaks against using the LoRA, by its sweep."""
    kept = run.fact("strength")
    if not kept or kept["value"]:
        return []
    return [f"The strength sweep speaks against this LoRA. {kept['words']}"]
