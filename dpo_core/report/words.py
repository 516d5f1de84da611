"""The report's sentences: whether the model got better, and what to distrust. Numbers in, sentences out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..axes import names_of

REWARDS = ("fidelity", "alignment")
TRUTH = "oracle_all_right"
FEW_PROMPTS, FEW_PICTURES = 20, 100
"""With fewer, a gain of the usual size is lost in the noise (in the toybox, 33 images showed nothing)."""


@dataclass(frozen=True)
class Answer:
    """Status, headline and the sentences under it.

    `status`: "better", "mixed", "hacked", "worse", "none", "original" (the original was kept) or "untrained".
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
    low, high = gain["ci95"]
    if low is None or high is None:
        return "no interval: a single prompt"
    return f"95 % interval {low:+.3f} to {high:+.3f}"


def gain_words(title: str, gain: Mapping) -> str:
    """E.g. "fidelity 0.442 to 0.501 (+0.059, 95 % interval +0.041 to +0.077)"."""
    return f"{title} {gain['before']:.3f} to {gain['after']:.3f} ({gain['gain']:+.3f}, {interval_words(gain)})"


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
        at = ", ".join(f"{_inside(scorers, n)} {numbers[n]['before']:.3f}" for n in reward_names(numbers))
        headline = "No round is finished yet." if numbers["training"]["steps"] else "Nothing was trained yet."
        return Answer("untrained", headline, (f"The start was measured on {counted}): {at}.",))
    status, headline = verdict(numbers, scorers)
    truth, judges = numbers.get(TRUTH), _judges(numbers, scorers)
    each = [gain_words(_inside(scorers, n), numbers[n]) for n in reward_names(numbers)]
    sentences = [f"Over {counted}, the same seeds before and after): {', '.join(each[:-1])} and {each[-1]}."]
    if joint := numbers.get("axes"):
        said = ", ".join(f"{axis} {gain['gain']:+.3f} ({interval_words(gain)})" for axis, gain in joint.items())
        sentences.append(
            "An axis with several scorers counts by the mean of their gains in standard deviations, as in early "
            f"stopping: {said}."
        )
    if truth:
        meaning = {"up": "rose", "down": "fell", "unclear": "shows no clear change"}[truth["verdict"]]
        too = ", too" if truth["verdict"] == "up" and status == "better" else ""
        sentences.append(f"The truth {meaning}{too}: " + gain_words(_title(scorers, TRUTH), truth) + ".")
    if judges:
        sentences.append(_judges_words(judges, numbers, scorers))
    kept = numbers.get("kept")
    if kept and not kept["kept"]:
        tried = f"The numbers below are those of round {numbers['shown_round']}, which was not kept."
        return Answer("original", "No gain is kept: the LoRA changes nothing.", (kept["words"], tried, *sentences))
    return Answer(status, headline, (*sentences, *([kept["words"]] if kept else [])))


def verdict(numbers: Mapping, scorers: Mapping[str, Mapping]) -> tuple[str, str]:
    """(status, headline) of gains by scorer name, each with its "verdict".

    Report, nodes and terminal share this rule and its words. Better means: neither reward axis down and at least one
    up, and no judge down on either axis, each by its interval over prompts. See `Answer`.
    """
    up, down = ([n for n in REWARDS if axis_verdict(numbers, n) == way] for way in ("up", "down"))
    fallen = [n for n in _judges(numbers, scorers) if numbers[n]["verdict"] == "down"]
    return _headline(up, down, numbers.get(TRUTH), fallen)


def evaluation_words(numbers: Mapping[str, Mapping], scorers: Mapping[str, Mapping]) -> str:
    """The verdict, then one line a scorer: before, after, gain with its interval, and the word for the change.

    `numbers`: as `verdict` takes them.
    """
    first = next(iter(numbers.values()))
    counted = f"{plural(first['images'], 'held-out picture')} of {plural(first['prompts'], 'prompt')}"
    lines = [verdict(numbers, scorers)[1], f"{counted}, equal seeds; 95 % intervals over prompts."]
    for name, gain in numbers.items():
        change = change_word(gain["verdict"], scorers[name]["higher_is_better"])
        moved = f"{gain['before']:.3f} -> {gain['after']:.3f} ({gain['gain']:+.3f}, {interval_words(gain)})"
        lines.append(f"{_title(scorers, name)}: {moved}: {change}")
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


def _title(scorers: Mapping[str, Mapping], name: str) -> str:
    return str(scorers.get(name, {}).get("title") or name)


def _inside(scorers: Mapping[str, Mapping], name: str) -> str:
    """A reward scorer's title for use inside a sentence: "fidelity", "fidelity (2nd scorer)"."""
    return name if name in REWARDS else _title(scorers, name).lower()


def _judges_words(judges: Sequence[str], numbers: Mapping, scorers: Mapping[str, Mapping]) -> str:
    word = {"up": "up", "down": "down", "unclear": "no clear change"}
    parts = []
    for name in judges:
        gain = numbers[name]
        parts.append(f"{_title(scorers, name)} {word[gain['verdict']]} ({gain['gain']:+.3f}, {interval_words(gain)})")
    return "A judge of another backbone, which nothing was trained on: " + "; ".join(parts) + "."


def distrust(numbers: Mapping, scorers: Mapping[str, Mapping], facts: Mapping) -> list[str]:
    """Reasons to distrust the numbers, the gravest first.

    facts: "settings_rounds" (rounds asked for), "finished" (whether the loop ended), "unfinished" (rounds whose
    evaluation was left out), "unseen" (list or None), "start" (dict or None).
    """
    first = numbers["fidelity"]
    found: list[str] = []
    if "gain" in first:
        found += _disagreements(numbers, scorers)
        found += _guards(numbers, scorers)
    found += numbers["training"]["warnings"]
    if first["prompts"] < FEW_PROMPTS or first["images"] < FEW_PICTURES:
        found.append(
            f"Only {plural(first['prompts'], 'held-out prompt')} and {plural(first['images'], 'picture')}: small gains "
            f"and losses cannot be detected. Use at least {FEW_PROMPTS} prompts and {FEW_PICTURES} pictures."
        )
    found += _contexts(numbers, scorers, facts)
    found += _gaps(numbers, facts)
    found.append(
        "The intervals cover the choice of prompts only. Another training seed, or one round more or less, changes the "
        "result too; only repeated runs show by how much."
    )
    return found


def _disagreements(numbers: Mapping, scorers: Mapping[str, Mapping]) -> list[str]:
    found = []
    for axis in REWARDS:
        judge, verdict = numbers.get(f"judge_{axis}"), axis_verdict(numbers, axis)
        if judge and verdict == "up" and judge["verdict"] != "up":
            how = "fell" if judge["verdict"] == "down" else "shows no clear change"
            found.append(
                f"The reward's {axis} rose, but the judge's {how}: part of the gain may be specific to the reward "
                "model."
            )
        if judge and verdict == "down" and judge["verdict"] == "up":
            found.append(f"The reward's {axis} fell, but the judge's rose: the two do not measure the same thing here.")
        if verdict == "up" and (fell := [n for n in names_of(axis, numbers) if numbers[n]["verdict"] == "down"]):
            found.append(
                f"{axis.capitalize()} rose over its scorers, but {_inside(scorers, fell[0])} fell: they disagree."
            )
    truth = numbers.get(TRUTH)
    if truth and truth["verdict"] != "up" and any(axis_verdict(numbers, n) == "up" for n in REWARDS):
        found.append("The reward shows a gain that the truth does not show: do not count it as a result.")
    roles = {scorers.get(n, {}).get("role") for n in numbers}
    if not roles & {"judge", "oracle"}:
        found.append(
            "No judge scored this run: the model was trained on the same scores that are reported, and these can be "
            "hacked. Set a judge."
        )
    return found


def _guards(numbers: Mapping, scorers: Mapping[str, Mapping]) -> list[str]:
    found = []
    for name, about in scorers.items():
        if about.get("role") == "guard" and name in numbers:
            if change_word(numbers[name]["verdict"], about.get("higher_is_better")) == "worse":
                said = gain_words(_title(scorers, name), numbers[name])
                found.append(
                    f"A guard got worse: {said}. Look at the pictures for copies of the photos, too little variety, or "
                    "the photos' background."
                )
    return found


def _contexts(numbers: Mapping, scorers: Mapping[str, Mapping], facts: Mapping) -> list[str]:
    unseen = numbers.get("unseen")
    if unseen and "gain" in unseen["fidelity"]:
        named = [n for n in (*reward_names(unseen), TRUTH) if n in unseen]
        said = ", ".join(gain_words(_title(scorers, n).lower(), unseen[n]) for n in named)
        count = plural(unseen["fidelity"]["prompts"], "prompt")
        return [
            f"On {count} in contexts that no training prompt names: {said}. Gains there may be smaller: add training "
            "prompts for the contexts you need."
        ]
    if facts.get("unseen") == []:
        return [
            "Every held-out context is named by some training prompt too, so contexts that training never saw were not "
            "measured."
        ]
    return []


def _gaps(numbers: Mapping, facts: Mapping) -> list[str]:
    found = []
    last, asked = numbers["evaluated_rounds"][-1], facts.get("settings_rounds") or 0
    if unfinished := facts.get("unfinished"):
        which = ", ".join(map(str, unfinished))
        found.append(f"Unfinished evaluations were left out (after round {which}). Resume the run to finish them.")
    if (kept := numbers.get("kept")) and 0 < kept["kept"] < last:
        found.append(
            f"Round {kept['kept']} was chosen among {plural(last, 'round')} on these same prompts, so its gain is "
            "slightly overestimated."
        )
    if last < numbers["rounds"]:
        found.append(
            f"{plural(numbers['rounds'], 'round')} were trained, but the last finished evaluation is after round "
            f"{last}."
        )
    elif numbers["rounds"] < asked and not facts.get("finished") and not (kept and kept["stop"]):
        found.append(f"The run is not finished: {numbers['rounds']} of {asked} rounds. Resume it to go on.")
    start = facts.get("start") or {}
    if start.get("under_fitted"):
        found.append(
            "The start is under-fitted (its fidelity is low): preference training may raise fidelity at the cost of "
            "alignment."
        )
    elif start.get("extended"):
        found.append("The start was under-fitted at first and got more training steps, by a rule fixed beforehand.")
    barren = [y for y in numbers["pairs"] if y.get("prompts") and y.get("prompts_without_pair", 0) > 0.5 * y["prompts"]]
    if barren:
        found.append(
            f"In round {', '.join(str(y['round'] + 1) for y in barren)} more than half of the prompts gave no pair, so "
            "training never saw them: widen the window, lower the margin, or sample more candidates."
        )
    if few := [y for y in numbers["pairs"] if y.get("advice")]:
        found.append(
            f"There were few pairs in round {', '.join(str(y['round'] + 1) for y in few)}. "
            f"Round {few[0]['round'] + 1}: {few[0]['advice']}"
        )
    if blind := [y for y in numbers["pairs"] if (y.get("drafts") or {}).get("doubtful")]:
        found.append(
            f"Drafts predicted the scores poorly. Round {blind[0]['round'] + 1}: {blind[0]['drafts']['sentence']}"
        )
    return found
