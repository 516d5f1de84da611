"""Advice when a round has too few pairs: an estimate of what would give enough."""

from __future__ import annotations

from math import ceil

from ..settings import PairSettings, SamplingSettings
from .choose import PairYield

MAX_CANDIDATES = next(m.le for m in SamplingSettings.model_fields["candidates_per_prompt"].metadata if hasattr(m, "le"))
"""Upper limit of the setting candidates_per_prompt."""


def _looser(settings: PairSettings) -> str:
    """End of a sentence that names the settings to loosen, so that more pairs pass the rule; "" for random."""
    if settings.rule == "random":
        return ""
    return (
        ", or widen the window or lower the margin"
        if settings.rule == "angle_window" and settings.window == "fixed"
        else ", or lower the margin"
    )


def pairs_advice(pair_yield: PairYield, settings: PairSettings, candidates_per_prompt: int) -> str | None:
    """A warning when fewer than `settings.min_pairs` pairs were selected, with a remedy; None when there are enough.

    The remedy is an estimate of the candidates or prompts needed: with n candidates a prompt has n(n-1)/2 possible
    pairs, and the selected share of them is assumed to stay the same. When the limits (max_pairs_per_prompt, max_uses)
    are the cause, the warning names those instead. Pure function.
    """
    need, kept, n = settings.min_pairs, pair_yield.kept, candidates_per_prompt
    if kept >= need:
        return None
    few = f"Few pairs: {kept}, but min_pairs asks for {need}."
    if pair_yield.prompts * settings.max_pairs_per_prompt < need:
        limit = ceil(need / max(1, pair_yield.prompts))
        most = pair_yield.prompts * settings.max_pairs_per_prompt
        reason = (
            f"{pair_yield.prompts} prompts with at most {settings.max_pairs_per_prompt} pairs each give {most} at most"
        )
        return f"{few} {reason}: raise max_pairs_per_prompt to {limit}, or add prompts."
    over = pair_yield.over_uses + pair_yield.over_prompt_limit
    if kept + over >= need:
        return f"{few} {over} more pass the rule but are over the limits: raise max_uses or max_pairs_per_prompt."
    if not kept:
        return f"{few} No pair passes the rule, so more candidates alone may not help: add prompts{_looser(settings)}."

    def enough(count: int) -> bool:
        room = pair_yield.prompts * count * settings.max_uses >= 2 * need
        return room and kept * count * (count - 1) >= need * n * (n - 1)

    count = next((c for c in range(n + 1, MAX_CANDIDATES + 1) if enough(c)), None)
    if count is None:
        prompts = ceil(pair_yield.prompts * need / kept)
        return f"{few} Use about {prompts} prompts instead of {pair_yield.prompts}{_looser(settings)}."
    return f"{few} Use about {count} candidates per prompt ({count - n} more){_looser(settings)}."
