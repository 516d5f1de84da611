"""The report's section on the strength sweep."""

from __future__ import annotations

from ..errors import UserError
from ..evaluation.strength import Sweep
from ..json_values import from_json
from ..run.folder import RunFolder
from .pictures import Picture
from .plots.figure import figure_image
from .plots.strength import strength_figure, strength_strip
from .words import measurers


def strength_pictures(run: RunFolder) -> list[Picture]:
    """The curve ("strength") and the strip ("strength_strip") of the run's strength sweep; [] if there was none.

    Raises UserError for a missing or unreadable image.
    """
    kept = run.fact("strength")
    if not kept or not kept["points"]:
        return []
    found = from_json(Sweep, kept)
    prompts = len({c.prompt_index for c in run.candidates(found.sets[0])})
    caption = (
        f"Each strength on the same {prompts} held-out prompts and seeds; 95 % intervals over prompts. Gain: mean of "
        f"both axes by {measurers(run.fact('scorers') or {})} against strength 0, in standard deviations within "
        "prompts. The strength with the highest lower bound is recommended, unless a guard failed there. It was "
        "chosen on these prompts, so its own gain is slightly overestimated."
    )
    curve = Picture(
        "strength", figure_image(strength_figure(found.points, found.value)), "scores and gain by strength", caption
    )
    try:
        strip = strength_strip(run, found)
    except OSError as error:
        raise UserError(
            f"a picture of the strength sweep in {run.path} cannot be read ({error}). Put it back, or start again in a "
            "new output folder."
        ) from error
    words = (
        "Held-out prompts, evenly spaced over the list, with the first seed of each; a row has one noise. Nothing was "
        "chosen by its look or score."
    )
    return [curve, Picture("strength_strip", strip, "held-out pictures by strength", words)]


def strength_warnings(run: RunFolder) -> list[str]:
    """A warning when the strength sweep recommends the original, else []."""
    kept = run.fact("strength")
    if not kept or kept["value"]:
        return []
    return [f"The strength sweep found no strength at which this LoRA helps. {kept['words']}"]
