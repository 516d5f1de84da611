"""What to do after a verdict, in words: report, nodes and terminal all take it from here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rounds:
    """What is known of a run's rounds where advice is given: which is kept (0: the original), the last one measured,
    whether early stopping ended the run, and whether a guard failed in the best round.
    """

    kept: int
    last: int
    stopped: bool
    broken: bool

    @classmethod
    def of(cls, kept: Mapping | None, watch: Sequence[Mapping]) -> Rounds | None:
        """From a decision and standings as JSON (evaluation/stop_rule.py); None before the first round is measured."""
        if not kept or not watch:
            return None
        broken = any(s["broken"] for s in watch if s["round"] == kept["best"])
        return cls(kept["kept"], watch[-1]["round"], bool(kept["stop"]), broken)


_REMEDIES = {
    "copy_paste": "give masks or photos in several places",
    "diversity": "raise diversity (0.5 is usual, with a rule that has a reward), train fewer steps or raise beta",
    "saturation": "see whether the scorer pays for strong colours (a judge of another kind tells)",
}
"""By the guard that failed, the gravest first."""
_UNCONFIRMED = "Look at its pictures before you use it: only the scores that were trained on show a gain. "


def advice(
    status: str,
    lost: Collection[str] = (),
    lower: bool = False,
    rounds: Rounds | None = None,
    strength: float | None = None,
    judged: bool = True,
) -> str:
    """What to do now: the one place where report, nodes and terminal take it from.

    status: of the verdict, or "original" (no round is kept). lost: names of guards that failed. lower: where the two
    axes were traded, whether alignment fell. strength: what a strength sweep recommends, if one was made; 0: none.
    judged: whether a judge, or the truth, checked the gain.
    """
    gained = status in ("better", "unconfirmed")
    if status == "original" or (rounds and not rounds.kept):
        return "Your original is kept: " + (
            "the best round failed a guard. Train fewer steps or raise beta, and look at its pictures."
            if rounds and rounds.broken
            else "no round is shown to be better. More candidates per prompt or rounds make a gain larger; more "
            "held-out prompts make a small one visible."
        )
    if gained and strength == 0:
        return "Do not use it: the strength sweep found no strength at which it helps."
    if gained and lost:
        remedy = next((said for guard, said in _REMEDIES.items() if guard in lost), "train fewer steps or raise beta")
        first = _UNCONFIRMED if status == "unconfirmed" else ""
        return (
            f"{first}Use it at a lower strength (the strength sweep finds one), or keep an earlier round; then "
            f"{remedy} and train again."
        )
    if status == "better":
        use = f"Use it at strength {1 if strength is None else strength:g}."
        more = "" if strength is not None else " A strength sweep shows whether another strength is better."
        if rounds and rounds.kept == rounds.last and not rounds.stopped:
            more = " One more round may help: the gain still rose in the last round."
        doubt = "" if judged else " No judge checked it: look at its pictures, and measure it with one."
        return use + doubt + more
    if status == "mixed":
        return f"{'Lower' if lower else 'Raise'} fidelity_weight and train again, or try a lower strength."
    return {
        "unconfirmed": f"{_UNCONFIRMED}More held-out prompts make a real gain visible to the judge, too."
        + (f" The sweep's strength is {strength:g}." if strength else ""),
        "hacked": "Look at the pictures before you use it. Train fewer rounds, or with a second reward scorer.",
        "worse": "Use your original. Look at the pairs, then train with fewer steps or a lower learning rate.",
        "none": "Use your original: more rounds or candidates per prompt make a gain larger; more held-out prompts "
        "make a small one visible.",
    }[status]
