"""Whether the held-out pictures can show a gain at all: two prompts for an interval, two seeds for a spread."""

from __future__ import annotations

from ..errors import UserError

LEAST_PROMPTS, LEAST_SEEDS = 2, 2
"""With one prompt a bootstrap over prompts has no interval; with one picture of each, scores have no spread within
prompts, which is the unit of a gain.
"""


def check_enough(prompts: int, seeds_per_prompt: int, what: str, instead: str = "") -> None:
    """Refuse a comparison that could never show a gain, before its pictures are drawn.

    prompts: number of held-out prompts. what: what needs the gain, as the subject of a sentence ("stop.rule: best").
    instead: a further remedy, after "or". Raises UserError.
    """
    other = f", or {instead}" if instead else ""
    if prompts < LEAST_PROMPTS:
        raise UserError(
            f"{what} judges by the interval of a gain over held-out prompts, but there is only {prompts} "
            "held-out prompt, and a single one has no interval: no gain could ever be shown. Write at least five "
            "prompts, of which two are then held out (20 or more are usual), or give two or more held-out prompts of "
            f"your own{other}."
        )
    if seeds_per_prompt < LEAST_SEEDS:
        raise UserError(
            f"{what} measures gains in standard deviations of the pictures of one prompt, but seeds_per_prompt is "
            f"{seeds_per_prompt}, and a single picture has no spread: every gain would be 0. Set it to 2 or more; 6 is "
            f"usual{other}."
        )
