"""What the panel of DPO Rounds shows of the measured rounds, as JSON; the page fetches the pictures itself."""

from __future__ import annotations

from typing import Any

from ...dpo_core.report.plots.grids import evenly
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.run.previews import some_previews
from ..sockets import Kept

PROMPTS = 4
"""Most held-out prompts that are shown, evenly spaced and chosen without looking at scores."""


def panel(kept: Kept, said: str) -> dict[str, Any]:
    """The measured rounds: points of the fidelity-alignment plane, pictures before and after, and the decision.

    said: the report, whose first line is the decision. A point is [round, mean fidelity, mean alignment]; round 0 is
    the start. Pictures after are those of the kept round, or of the last one where the original is kept.
    """
    decision, made = kept.decision, kept.made
    points = [[i, round(m.fidelity, 5), round(m.alignment, 5)] for i, m in enumerate(made)]
    shown = decision.kept or len(made) - 1
    return {
        "run": kept.candidates.folder.name,
        "points": points,
        "kept": decision.kept,
        "ended": decision.stop,
        "said": said.partition("\n")[0],
        "pictures": _pictures(kept, shown),
    }


def _pictures(kept: Kept, shown: int) -> dict[str, Any]:
    """Names of the previews of a few held-out prompts, at the start and after the round `shown`."""
    with RunFolder(kept.candidates.folder) as run:
        first = {c.prompt_index: c for c in reversed(run.candidates(kept.made[0].evaluation))}
        chosen = [first[i] for i in evenly(len(first), PROMPTS)]
        sides = []
        for number in (0, shown):
            name = kept.made[number].evaluation
            sides.append(
                {"round": number, "set": name, "names": some_previews(run, name, [c.position for c in chosen])}
            )
        return {"prompts": [c.prompt for c in chosen], "sides": sides}
