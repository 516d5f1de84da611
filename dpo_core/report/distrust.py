"""The report's reasons to distrust its numbers. Numbers in, sentences out."""

from __future__ import annotations

from collections.abc import Mapping

from ..axes import names_of
from .words import REWARDS, TRUTH, axis_verdict, change_word, gain_words, inside_words, plural, reward_names, title_of

FEW_PROMPTS, FEW_PICTURES = 20, 100
"""With fewer, a gain of the usual size is lost in the noise (in the toybox, 33 images showed nothing)."""

SEED_SHARE = 8
"""Standard deviation of a subject's gain in right pictures over training seeds, 2.5 points, per cent of the mean gain,
32.0 (docs/quality.md).
"""


def distrust(numbers: Mapping, scorers: Mapping[str, Mapping], facts: Mapping) -> list[str]:
    """Reasons to distrust the numbers, the gravest first.

    facts: "settings_rounds" (rounds asked for), "finished" (whether the loop ended), "unfinished" (rounds whose
    evaluation was left out), "unseen" (list or None), "start" (dict or None), "doubts" (sentences on the concept).
    """
    first = numbers["fidelity"]
    found: list[str] = []
    if "gain" in first:
        found += _disagreements(numbers, scorers)
        found += _guards(numbers, scorers)
    found += _unscored(numbers, scorers)
    found += numbers["training"]["warnings"]
    found += [f"{said[0].upper()}{said[1:].rstrip('.')}." for said in facts.get("doubts") or []]
    if first["prompts"] < FEW_PROMPTS or first["images"] < FEW_PICTURES:
        found.append(
            f"Only {plural(first['prompts'], 'held-out prompt')} and {plural(first['images'], 'picture')}: small gains "
            f"and losses cannot be detected. Use at least {FEW_PROMPTS} prompts and {FEW_PICTURES} pictures."
        )
    found += _contexts(numbers, scorers, facts)
    found += _gaps(numbers, facts)
    found.append(
        "The intervals cover the choice of prompts only. Another training seed changes the result too: in the toybox "
        f"by {SEED_SHARE} % of the gain (standard deviation, three seeds of ten subjects). Only repeated runs show by "
        "how much it is here."
    )
    return found


def _unscored(numbers: Mapping, scorers: Mapping[str, Mapping]) -> list[str]:
    """The shares of pictures without a score, which a mean over the others does not show."""
    found = []
    for name, shares in numbers.get("unscored", {}).items():
        if not shares["before"] and not shares["after"]:
            continue
        then = "" if shares["after"] is None else f" before and {100 * shares['after']:.0f} % after"
        found.append(
            f"{100 * shares['before']:.0f} % of {plural(shares['images'], 'held-out picture')}{then} have no score by "
            f"{inside_words(scorers, name)} ({shares['why']}): its means and its gain are over the other pictures."
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
                f"{axis.capitalize()} rose over its scorers, but {inside_words(scorers, fell[0])} fell: they disagree."
            )
    truth = numbers.get(TRUTH)
    if truth and truth["verdict"] != "up" and any(axis_verdict(numbers, n) == "up" for n in REWARDS):
        found.append("The reward shows a gain that the truth does not show: do not count it as a result.")
    roles = {scorers.get(n, {}).get("role") for n in numbers}
    unseen = [a for a in REWARDS if axis_verdict(numbers, a) == "up" and f"judge_{a}" not in numbers]
    if unseen and "judge" in roles and truth is None:
        found.append(
            f"The judge does not score {unseen[0]}: its gain shows by the scorer that was trained on alone. A judge "
            "that reads prompts, such as a CLIP or SigLIP of another backbone, scores both axes."
        )
    if "judge" in roles and truth is None:
        found.append(
            "A fault that the judge shares with the scorer that was trained on shows in no number here. Take a judge "
            "of another kind of training, and compare pictures yourself."
        )
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
                said = gain_words(title_of(scorers, name), numbers[name])
                found.append(
                    f"A guard got worse: {said}. Look at the pictures for copies of the photos, too little variety, "
                    "the photos' background, or faults of drawing."
                )
    return found


def _contexts(numbers: Mapping, scorers: Mapping[str, Mapping], facts: Mapping) -> list[str]:
    unseen = numbers.get("unseen")
    if unseen and "gain" in unseen["fidelity"]:
        named = [n for n in (*reward_names(unseen), TRUTH) if n in unseen]
        said = ", ".join(gain_words(title_of(scorers, n).lower(), unseen[n]) for n in named)
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
