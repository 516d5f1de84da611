"""Numbers of the report: paired gains of every scorer, means by round, pair yields, training alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..axes import AXES, names_of
from ..errors import UserError
from ..evaluation.gains import Gain, paired_gain, scored_pairs
from ..evaluation.stop_rule import Interval, axis_gain
from ..json_values import finite, to_json
from ..pairs.advice import pairs_advice
from ..pairs.choose import read_yield
from ..records import Candidate
from ..run.folder import RunFolder
from ..settings import EvaluationSettings, PairSettings, SamplingSettings, TrainSettings
from ..statistics import bootstrap_interval, by_prompt, mean_known

DEFAULT_SCORERS = {
    "fidelity": {"role": "reward", "title": "Fidelity", "higher_is_better": True},
    "alignment": {"role": "reward", "title": "Alignment", "higher_is_better": True},
}
"""Used for a run folder that has no "scorers" fact."""


@dataclass(frozen=True)
class Evaluations:
    """The finished evaluations of a run.

    `rounds`: indices of the evaluated rounds, 0 is the start. `unfinished`: rounds whose evaluation lacks images or
    reward scores. `candidates`: the images that all evaluations share (prompt and seed). `values`: scores float64 [n]
    by (round, scorer), in the order of `candidates`; NaN where the scorer gave none.

    `shown`: the round that is compared with the start. It is the round that was kept; if the original was kept, the
    best round tried; without early stopping, or in an unfinished run, the last round.
    """

    rounds: tuple[int, ...]
    unfinished: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    scorers: dict[str, dict]
    values: dict[tuple[int, str], np.ndarray]
    shown: int

    @property
    def prompt_of(self) -> np.ndarray:
        """int [n]: prompt index of each candidate."""
        return np.asarray([c.prompt_index for c in self.candidates])

    @property
    def prompts(self) -> dict[int, str]:
        """Held-out prompts by index, in order."""
        return dict(sorted({c.prompt_index: c.prompt for c in self.candidates}.items()))

    def mean(self, index: int, scorer: str) -> float:
        """Mean over prompts of the prompts' means, as `paired_gain` computes before and after."""
        return float(mean_known(by_prompt(self.values[index, scorer], self.prompt_of)))

    def paired(self, scorer: str, only: np.ndarray) -> bool:
        """Whether one of the images `only` (bool [n]) has a score at the start and in the round shown."""
        before, after = self.values[0, scorer], self.values.get((self.shown, scorer))
        return after is not None and len(scored_pairs(before[only], after[only], self.prompt_of[only])[0]) > 0


def read_evaluations(run: RunFolder) -> Evaluations:
    """Collect the evaluations "evaluation_0", "evaluation_1", ... of a run.

    An evaluation is unfinished when it lacks images of evaluation_0 or reward scores by the same scorers. Raises
    UserError when the start (evaluation_0) is missing or has no fidelity and alignment scores, because there is nothing
    to compare with.
    """
    start = run.candidates("evaluation_0")
    known = {**DEFAULT_SCORERS, **(run.fact("scorers") or {})}
    at_start = {name: _complete(run, 0, name, start) for name in known}
    missing = [name for name in DEFAULT_SCORERS if at_start[name] is None]
    if not start or missing:
        why = (
            f"has no finished {' and '.join(missing)} scores of evaluation_0"
            if start
            else "holds no images of the start (evaluation_0)"
        )
        raise UserError(
            f"{run.path} {why}, so there is nothing to report. Run it first with `dreambooth-dpo run CONFIG.yaml`; "
            "continue an interrupted run with `--resume`."
        )
    rounds, unfinished = [0], []
    values = {(0, name): found for name, found in at_start.items() if found is not None}
    for index in _evaluated(run):
        found = {name: _complete(run, index, name, start) for name in known if (0, name) in values}
        if any(found[name] is None for name in DEFAULT_SCORERS):
            unfinished.append(index)
            continue
        rounds.append(index)
        values |= {(index, name): scores for name, scores in found.items() if scores is not None}
    scorers = {name: known[name] for name in known if (0, name) in values}
    kept = run.fact("kept") or {}
    shown = kept.get("kept") or kept.get("best") or rounds[-1]
    return Evaluations(
        tuple(rounds), tuple(unfinished), tuple(start), scorers, values, shown if shown in rounds else rounds[-1]
    )


def _evaluated(run: RunFolder) -> list[int]:
    """Indices of the rounds, without the start, for which evaluation images exist. There may be gaps."""
    settings = run.fact("settings") or {}
    most = max(int(run.fact("rounds") or 0), int(settings.get("rounds", 0)))
    return [k for k in range(1, most + 1) if run.chunks(f"evaluation_{k}")]


def _complete(run: RunFolder, index: int, scorer: str, start: Sequence[Candidate]) -> np.ndarray | None:
    """Scores in the order of `start`, matched by prompt and seed, float64 [n].

    None where a score is missing, or was made by another scorer than the start's.
    """
    name = f"evaluation_{index}"
    if len(run.score_marks(name, scorer) | run.score_marks("evaluation_0", scorer)) > 1:
        return None
    place = {(c.prompt_index, c.seed): c.position for c in run.candidates(name)}
    kept = run.scores(name, scorer)
    found = [kept.get(place.get((c.prompt_index, c.seed), -1)) for c in start]
    return None if not found or None in found else np.asarray(found, np.float64)


def gain_dict(gain: Gain) -> dict:
    """A gain and its verdict as plain JSON. The undefined interval of a single prompt is [null, null]."""
    return {**to_json(gain), "verdict": gain.verdict}


def gains(found: Evaluations, resamples: int, only: np.ndarray | None = None) -> dict[str, dict]:
    """Gain of every scorer from the start to the round shown.

    `only`: bool [n], the images to count (default: all). With no evaluation after the start, `after`, `gain` and `ci95`
    are left out and the verdict is "not trained". A scorer without an image that has a score both times is left out.
    """
    prompt_of = found.prompt_of
    chosen = np.ones(len(prompt_of), bool) if only is None else only
    result = {}
    for name in found.scorers:
        if not found.paired(name, chosen):
            continue
        before, after = found.values[0, name][chosen], found.values[found.shown, name][chosen]
        if found.shown == 0:
            means = by_prompt(before, prompt_of[chosen])
            mean, count = float(mean_known(means)), int((~np.isnan(means)).sum())
            images = int((~np.isnan(before)).sum())
            result[name] = {"before": mean, "images": images, "prompts": count, "verdict": "not trained"}
        else:
            result[name] = gain_dict(paired_gain(before, after, prompt_of[chosen], resamples))
    return result


def axis_gains(found: Evaluations, resamples: int) -> dict[str, dict]:
    """Joint gain of each axis that has several reward scorers: scorers, gain, ci95, verdict.

    Computed as early stopping does (`stop_rule.axis_gain`), in standard deviations within prompts. Empty where nothing
    was trained, and with one image a prompt, which has no such spread.
    """
    result = {}
    for axis in AXES:
        names = [n for n in names_of(axis, found.scorers) if found.paired(n, np.ones(len(found.candidates), bool))]
        if found.shown == 0 or len(names) < 2 or len(found.candidates) == len(found.prompts):
            continue
        before, after = ({n: found.values[k, n] for n in names} for k in (0, found.shown))
        gain = Interval.of(axis_gain(axis, before, after, found.prompt_of), resamples)
        ci95 = [v if math.isfinite(v) else None for v in (gain.low, gain.high)]
        verdict = "up" if gain.low > 0 else "down" if gain.high < 0 else "unclear"
        result[axis] = {"scorers": names, "gain": gain.mean, "ci95": ci95, "verdict": verdict}
    return result


def means(found: Evaluations) -> list[dict]:
    """Mean of each scorer by evaluated round: [{"round": 0, "fidelity": ..., ...}, ...]; round 0 is the start.

    A scorer that gave no image of a round a score is left out of it.
    """
    known = {key for key, values in found.values.items() if not np.isnan(values).all()}
    return [{"round": k, **{n: found.mean(k, n) for n in found.scorers if (k, n) in known}} for k in found.rounds]


def unscored(found: Evaluations, why: Mapping[str, str], resamples: int) -> dict[str, dict]:
    """Share (0..1) of held-out images without a score, of each scorer that may give none, at the start and now.

    why: the reason in words by scorer. {"fidelity_2": {"why": ..., "images": n, "before": 0.1, "after": 0.05,
    "verdict": "unclear"}}; `after` is that of the round shown, None where nothing was trained. The verdict is "up"
    where more images have no score, by the interval over prompts.
    """
    result = {}
    for name in (n for n in found.scorers if n in why):
        before = np.isnan(found.values[0, name]).astype(np.float64)
        result[name] = {"why": why[name], "images": len(before), "before": float(before.mean())}
        if found.shown and (found.shown, name) in found.values:
            after = np.isnan(found.values[found.shown, name]).astype(np.float64)
            verdict = paired_gain(before, after, found.prompt_of, resamples).verdict
            result[name] |= {"after": float(after.mean()), "verdict": verdict}
        else:
            result[name] |= {"after": None, "verdict": "not trained"}
    return result


def mean_interval(found: Evaluations, index: int, scorer: str, resamples: int) -> tuple[float, float]:
    """95 % interval of one round's mean over prompts. It is unpaired, hence wider than that of a gain."""
    return bootstrap_interval(by_prompt(found.values[index, scorer], found.prompt_of), resamples)


def pair_yields(run: RunFolder, rounds: int) -> list[dict]:
    """The pair yield of each round that has one: [{"round": 0, "possible": ..., "kept": ..., ...}, ...].

    Adds "advice", a warning about too few pairs or None, and "drafts", how well drafts predicted the scores (see
    `drafts.Told`), None where nothing was drafted.
    """
    settings = run.fact("settings") or {}
    pairs, sampling = PairSettings(**settings.get("pairs", {})), SamplingSettings(**settings.get("sampling", {}))
    yields = [{"round": r, **found} for r in range(rounds) if (found := run.fact(f"yield_round_{r}"))]
    for kept in yields:
        found = read_yield(kept)
        kept["advice"] = pairs_advice(found, pairs, sampling.candidates_per_prompt) if found else None
        kept["drafts"] = run.fact(f"told_round_{kept['round']}")
    return yields


def training_summary(records: Sequence[Sequence[dict]], settings: TrainSettings, stopped: dict | None) -> dict:
    """Alarms, final accuracy and margin, and warnings of the training of all rounds.

    `max_winner_alarm`: highest alarm of each round, None without records. `last_accuracy`, `last_margin`: means of the
    last 20 steps. `warnings`: sentences.
    """
    alarms = [max((float(r.get("winner_alarm", 0.0)) for r in part), default=None) for part in records]
    last = next((part for part in reversed(records) if part), [])[-20:]
    warnings = [
        f"In round {number} the winner's error rose {alarm:.3f} above the reference's (warning at "
        f"{settings.winner_error_warning:g}, stop at {settings.winner_error_collapse:g}): training was degrading the "
        "model."
        for number, alarm in enumerate(alarms, 1)
        if alarm is not None and alarm > settings.winner_error_warning
    ]
    if stopped:
        warnings.append(f"Training was stopped in round {int(stopped['round']) + 1}: {stopped['reason']}")
    return {
        "steps": [len(part) for part in records],
        "max_winner_alarm": alarms,
        "last_accuracy": float(np.mean([r["accuracy"] for r in last])) if last else None,
        "last_margin": float(np.mean([r["margin"] for r in last])) if last else None,
        "warnings": warnings,
    }


def collect(run: RunFolder, found: Evaluations) -> dict:
    """All numbers of report.json, without its sentences; see `write_report`."""
    settings = run.fact("settings") or {}
    evaluation = EvaluationSettings(**settings.get("evaluation", {}))
    concept = run.fact("concept") or {}
    trained = next((concept[k] for k in ("seed", "name", "identifier") if concept.get(k) is not None), "unnamed")
    rounds = int(run.fact("rounds") or 0) or found.rounds[-1]
    most = max(rounds, int(settings.get("rounds", 0)))
    records = [run.training(r) for r in range(most)]
    while records and not records[-1]:
        records.pop()
    unseen = np.isin(np.asarray([c.prompt for c in found.candidates]), run.fact("unseen") or [])
    found_numbers = {
        "concept": trained,
        "rounds": rounds,
        "evaluated_rounds": list(found.rounds),
        "shown_round": found.shown,
        "kept": run.fact("kept"),
        "watch": run.fact("watch") or [],
        **gains(found, evaluation.bootstrap),
        "axes": axis_gains(found, evaluation.bootstrap),
        "unseen": gains(found, evaluation.bootstrap, unseen) if unseen.any() else {},
        "unscored": unscored(found, run.fact("unscored") or {}, evaluation.bootstrap),
        "per_round": means(found),
        "pairs": pair_yields(run, most),
        "training": training_summary(records, TrainSettings(**settings.get("train", {})), run.fact("stopped")),
    }
    return finite(found_numbers)
