"""The report's sentences: whether the model got better. Numbers in, sentences out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..axes import names_of
from ..digits import decimals, interval_of
from ..evaluation.stop_rule import SATURATION_FLOOR
from .advice import Rounds, advice

REWARDS = ("fidelity", "alignment")
TRUTH = "oracle_all_right"
ALIKE = 0.85
"""Share of the diversity above 1 whose loss is a failed guard, as StopSettings.diversity_loss."""
SATURATION_RISE = 0.1
"""Rise of the saturation, as a share of the start's, that is a failed guard, as StopSettings.saturation_rise."""
QUALITY_FALL = 0.4
"""Fall of the quality, in logits, that is a failed guard, as StopSettings.quality_fall."""


@dataclass(frozen=True)
class Answer:
    """Status, headline and the sentences under it.

    `status`: "better", "unconfirmed" (no judge shows the gain), "mixed", "hacked", "worse", "none", "original" (the
    original was kept) or "untrained".
    """

    status: str
    headline: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join([self.headline, *self.sentences])


def change_word(verdict: str, higher_is_better: bool | None) -> str:
    """A verdict as "better", "worse", "changed" (neither direction is better), "no clear change" or "not trained"."""
    if verdict not in ("up", "down"):
        return "not trained" if verdict == "not trained" else "no clear change"
    if higher_is_better is None:
        return "changed"
    return "better" if (verdict == "up") == higher_is_better else "worse"


def interval_words(gain: Mapping) -> str:
    said = moved(gain)[1]
    return f"95 % interval {said}" if said else "no interval: a single prompt"


def moved(gain: Mapping, to: str = " to ") -> tuple[str, str]:
    """A gain and its interval, "" for a single prompt, with digits by the interval's width: report, node, terminal."""
    return interval_of(gain["gain"], *gain["ci95"], least=3, to=to)


def gain_words(title: str, gain: Mapping) -> str:
    """E.g. "fidelity 0.442 to 0.501 (+0.059, 95 % interval +0.041 to +0.077)"."""
    before, after = levels(gain)
    return f"{title} {before} to {after} ({change_words(gain)})"


def levels(gain: Mapping) -> tuple[str, str]:
    """Before and after, with as many decimals as the gain."""
    places = decimals(gain["gain"], *gain["ci95"], least=3)
    return f"{gain['before']:.{places}f}", f"{gain['after']:.{places}f}"


def change_words(gain: Mapping) -> str:
    """ "+0.059, 95 % interval +0.041 to +0.077"."""
    return f"{moved(gain)[0]}, {interval_words(gain)}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def reward_names(found: Mapping) -> list[str]:
    """Names in `found` that are reward scorers of an axis, those of fidelity first."""
    return [name for axis in REWARDS for name in names_of(axis, found)]


def measurers(scorers: Mapping[str, Mapping]) -> str:
    """Which roles measure the gain: "reward and judge", or "reward alone" where there is no judge."""
    return "reward and judge" if any(about.get("role") == "judge" for about in scorers.values()) else "reward alone"


def axis_verdict(numbers: Mapping, axis: str) -> str:
    """The verdict of an axis, "up", "down" or "unclear"; of all its scorers together where it has several."""
    return numbers.get("axes", {}).get(axis, numbers[axis])["verdict"]


def answer(numbers: Mapping, scorers: Mapping[str, Mapping]) -> Answer:
    """The report's answer: whether the model got better, on which numbers, and what was kept.

    Better means: neither reward axis down and at least one up, each by its interval over prompts. An axis with several
    scorers counts by their mean in standard deviations ("axes" of the numbers), as in early stopping. "hacked" means
    that the rewards rose and the truth fell, or a judge fell where the truth is not scored or did not rise.
    """
    first = numbers["fidelity"]
    counted = f"{plural(first['prompts'], 'held-out prompt')} ({plural(first['images'], 'picture')}"
    if "gain" not in first:
        at = ", ".join(f"{inside_words(scorers, n)} {numbers[n]['before']:.3f}" for n in reward_names(numbers))
        headline = "No round is finished yet." if numbers["training"]["steps"] else "Nothing was trained yet."
        return Answer("untrained", headline, (f"The start was measured on {counted}): {at}.",))
    status, headline = verdict(numbers, scorers)
    truth, judges = numbers.get(TRUTH), _judges(numbers, scorers)
    each = [gain_words(inside_words(scorers, n), numbers[n]) for n in reward_names(numbers)]
    sentences = [f"Over {counted}, the same seeds before and after): {', '.join(each[:-1])} and {each[-1]}."]
    if joint := numbers.get("axes"):
        said = ", ".join(f"{axis} {moved(gain)[0]} ({interval_words(gain)})" for axis, gain in joint.items())
        sentences.append(
            "An axis with several scorers counts by the mean of their gains in standard deviations, as in early "
            f"stopping: {said}."
        )
    if truth:
        meaning = {"up": "rose", "down": "fell", "unclear": "shows no clear change"}[truth["verdict"]]
        too = ", too" if truth["verdict"] == "up" and status == "better" else ""
        sentences.append(f"The truth {meaning}{too}: " + gain_words(title_of(scorers, TRUTH), truth) + ".")
    if judges:
        sentences.append(_judges_words(judges, numbers, scorers))
    kept, rounds = numbers.get("kept"), Rounds.of(numbers.get("kept"), numbers.get("watch") or ())
    step = next_step(numbers, scorers, rounds)
    if kept and not kept["kept"]:
        tried = f"The numbers below are those of round {numbers['shown_round']}, which was not kept."
        headline = "No gain is kept: the LoRA changes nothing."
        return Answer("original", headline, (kept["words"], step, tried, *sentences))
    return Answer(status, headline, (*sentences, step, *([kept["words"]] if kept else [])))


def verdict(numbers: Mapping, scorers: Mapping[str, Mapping]) -> tuple[str, str]:
    """(status, headline) of gains by scorer name, each with its "verdict".

    Report, nodes and terminal share this rule and its words. Better means: neither reward axis down and at least one
    up, and no judge down on either axis, each by its interval over prompts. See `Answer`. A gain that only the scores
    trained on show is said to be one; where a judge shows it on no axis that rose, it is "unconfirmed".
    """
    up, down = ([n for n in REWARDS if axis_verdict(numbers, n) == way] for way in ("up", "down"))
    judges = _judges(numbers, scorers)
    fallen = [n for n in judges if numbers[n]["verdict"] == "down"]
    status, headline = _headline(up, down, numbers.get(TRUTH), fallen)
    seen = [numbers[n]["verdict"] for axis in up if (n := f"judge_{axis}") in judges]
    if status == "better" and seen and "up" not in seen and TRUTH not in numbers:
        status, headline = "unconfirmed", f"By the scorer alone it got better: {' and '.join(up)} rose."
    against = [*failed_guards(numbers, scorers).values(), *_unseen_by_judge(numbers, scorers, up)]
    said = f"{headline[:-1]}, but {' and '.join(against)}."
    return status, said if against and status in ("better", "unconfirmed") else headline


def _unseen_by_judge(numbers: Mapping, scorers: Mapping[str, Mapping], up: Sequence[str]) -> list[str]:
    """In words, the risen axes on which the judge shows no clear gain, or that there is no judge; none where the truth
    is known to have risen.
    """
    if numbers.get(TRUTH, {}).get("verdict") == "up":
        return []
    judges = _judges(numbers, scorers)
    if not judges and TRUTH not in numbers:
        return ["no judge checked it"]
    unseen = [a for a in up if (name := f"judge_{a}") in judges and numbers[name]["verdict"] != "up"]
    return [f"the judge shows no clear gain in {' and '.join(unseen)}"] if unseen else []


def failed_guards(numbers: Mapping, scorers: Mapping[str, Mapping]) -> dict[str, str]:
    """Guards that contradict a gain, in words by name: pictures copy the photos more, are all alike, are clearly more
    saturated or worse, or have no score.

    Every good run loses some diversity, as wrong pictures are diverse, too: what counts is a clear loss of more than
    ALIKE of what there was above 1.
    """
    found = {}
    if numbers.get("copy_paste", {}).get("verdict") == "up":
        found["copy_paste"] = "pictures copy the photos more"
    kinds = numbers.get("diversity", {})
    if kinds.get("verdict") == "down" and kinds["after"] - 1 < (1 - ALIKE) * (kinds["before"] - 1):
        found["diversity"] = "the pictures of a prompt became alike"
    colours = numbers.get("saturation", {})
    if colours.get("verdict") == "up" and colours["ci95"][0] > max(
        SATURATION_RISE * colours["before"], SATURATION_FLOOR
    ):
        found["saturation"] = "the colours became more saturated"
    quality = numbers.get("quality", {})
    if quality.get("verdict") == "down" and quality["ci95"][1] < -QUALITY_FALL:
        found["quality"] = "the pictures lost quality"
    found = {name: said for name, said in found.items() if scorers.get(name, {}).get("role") == "guard"}
    lost = [name for name, shares in numbers.get("unscored", {}).items() if shares["verdict"] == "up"]
    return found | {name: f"more pictures have no score by {inside_words(scorers, name)}" for name in lost}


def next_step(numbers: Mapping, scorers: Mapping[str, Mapping], rounds: Rounds | None = None) -> str:
    """`advice` after the verdict of these numbers."""
    return advice(
        verdict(numbers, scorers)[0],
        failed_guards(numbers, scorers),
        axis_verdict(numbers, "alignment") == "down",
        rounds,
        (numbers.get("strength") or {}).get("value"),
        bool(_judges(numbers, scorers)) or TRUTH in numbers,
    )


def evaluation_words(
    numbers: Mapping[str, Mapping], scorers: Mapping[str, Mapping], rounds: Rounds | None = None
) -> str:
    """The verdict, what to do next, then one line a scorer: before, after, gain with its interval, word for the change.

    `numbers`: as `verdict` takes them. `rounds`: of the run that made the model, where they were measured.
    """
    first = next(iter(numbers.values()))
    counted = f"{plural(first['images'], 'held-out picture')} of {plural(first['prompts'], 'prompt')}"
    lines = [verdict(numbers, scorers)[1], next_step(numbers, scorers, rounds)]
    lines.append(f"{counted}, equal seeds; 95 % intervals over prompts.")
    for name, gain in numbers.items():
        change = change_word(gain["verdict"], scorers[name]["higher_is_better"])
        went = f"{' -> '.join(levels(gain))} ({change_words(gain)})"
        lines.append(f"{title_of(scorers, name)}: {went}: {change}")
    return "\n".join(lines)


def _judges(numbers: Mapping, scorers: Mapping[str, Mapping]) -> list[str]:
    return [n for n in numbers if scorers.get(n, {}).get("role") == "judge"]


def _headline(up: Sequence[str], down: Sequence[str], truth: Mapping | None, fallen: Sequence[str]) -> tuple[str, str]:
    verdict = truth["verdict"] if truth else None
    if up and not down:
        if verdict == "down":
            return "hacked", "The reward rose while the truth fell: looks hacked."
        if fallen and verdict != "up":
            return "hacked", "The reward rose while the judge fell: looks hacked."
        axes = " and ".join(up)
        if verdict == "unclear":
            return "better", f"Better in {axes} by the reward; the truth shows no clear gain."
        return "better", f"It got better: {axes} rose" + ("." if len(up) == 2 else f", {_other(up[0])} held.")
    if up and down:
        also = {"up": " The truth rose.", "down": " The truth fell."}.get(verdict or "", "")
        return "mixed", f"A trade, no gain shown: {up[0]} rose and {down[0]} fell.{also}"
    if down:
        return "worse", f"It got worse: {' and '.join(down)} fell." + (
            " Yet the truth rose." if verdict == "up" else ""
        )
    also = {"up": " (The truth rose.)", "down": " The truth fell."}.get(verdict or "", "")
    return "none", "No gain shown: neither fidelity nor alignment changed clearly." + also


def _other(axis: str) -> str:
    return REWARDS[1 - REWARDS.index(axis)]


def title_of(scorers: Mapping[str, Mapping], name: str) -> str:
    return str(scorers.get(name, {}).get("title") or name)


def inside_words(scorers: Mapping[str, Mapping], name: str) -> str:
    """A reward scorer's title for use inside a sentence: "fidelity", "fidelity (2nd scorer)"."""
    return name if name in REWARDS else title_of(scorers, name).lower()


def _judges_words(judges: Sequence[str], numbers: Mapping, scorers: Mapping[str, Mapping]) -> str:
    word = {"up": "up", "down": "down", "unclear": "no clear change"}
    parts = []
    for name in judges:
        gain = numbers[name]
        parts.append(f"{title_of(scorers, name)} {word[gain['verdict']]} ({change_words(gain)})")
    return "By the judge, which nothing was trained on: " + "; ".join(parts) + "."
