"""Whether a round has pairs enough, and what would give more."""

from __future__ import annotations

from math import ceil

from ..settings import PairSettings, SamplingSettings
from .choose import PairYield

MOST_CANDIDATES = next(
    m.le for m in SamplingSettings.model_fields["candidates_per_prompt"].metadata if hasattr(m, "le")
)


def _looser(settings: PairSettings) -> str:
    """What lets more pairs pass the rule, as the end of a sentence."""
    if settings.rule == "random":
        return ""
    return (
        ", or widen the window or lower the margin"
        if settings.rule == "angle_window" and settings.window == "fixed"
        else ", or lower the margin"
    )


def pairs_advice(found: PairYield, settings: PairSettings, candidates_per_prompt: int) -> str | None:
    """A warning when fewer than `settings.min_pairs` pairs are kept, with how many more candidates would do; None when
    there are enough.

    An estimate: with n candidates a prompt has n(n-1)/2 possible pairs, and the share of them that is kept is taken to
    stay as it is. Where the limits (max_pairs_per_prompt, max_uses) hold the pairs back, it says so instead. Pure.
    """
    need, kept, n = settings.min_pairs, found.kept, candidates_per_prompt
    if kept >= need:
        return None
    few = f"Few pairs: {kept}, where {need} or more are wanted (min_pairs)."
    if found.prompts * settings.max_pairs_per_prompt < need:
        limit = ceil(need / max(1, found.prompts))
        said = f"At {settings.max_pairs_per_prompt} a prompt they cannot be more than {found.prompts * settings.max_pairs_per_prompt}"
        return f"{few} {said}: raise max_pairs_per_prompt to {limit}, or add prompts."
    over = found.over_uses + found.over_prompt_limit
    if kept + over >= need:
        return f"{few} {over} more pass the rule and are over the limits: raise max_uses or max_pairs_per_prompt."
    if not kept:
        return f"{few} None passes, so more candidates alone may not help: add prompts{_looser(settings)}."

    def enough(count: int) -> bool:
        room = found.prompts * count * settings.max_uses >= 2 * need
        return room and kept * count * (count - 1) >= need * n * (n - 1)

    count = next((c for c in range(n + 1, MOST_CANDIDATES + 1) if enough(c)), None)
    if count is None:
        return f"{few} About {ceil(found.prompts * need / kept)} prompts in place of {found.prompts} would do{_looser(settings)}."
    return f"{few} About {count} candidates per prompt ({count - n} more) would do{_looser(settings)}."
