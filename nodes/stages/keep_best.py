"""Keep Best Round: measure a round against the original MODEL, apply the stop rule, and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ...dpo_core.backends.comfyui import live_adapter, lora_prefixes
from ...dpo_core.digits import interval_of
from ...dpo_core.errors import UserError
from ...dpo_core.evaluation.enough import check_enough
from ...dpo_core.evaluation.gains import Gain
from ...dpo_core.evaluation.held_out import Measured
from ...dpo_core.evaluation.stop_rule import Decision, Standing, decide, kept_words
from ...dpo_core.json_values import to_json
from ...dpo_core.report.advice import Rounds
from ...dpo_core.report.numbers import gain_dict
from ...dpo_core.report.plots.figure import figure_image
from ...dpo_core.report.plots.rounds import watch_figure
from ...dpo_core.report.plots.theme import theme
from ...dpo_core.report.words import next_step
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import EvaluationSettings, StopSettings, TrainSettings
from ...metrics.sets import concept_scorers, role_of
from ..host.runs import NodeProgress
from ..sockets import Candidates, Kept
from .evaluate import about_scores, evaluation_set, measure, start_of
from .loop_record import made_by, record_end, record_loop
from .train import DPOLora


def keep_best(
    models: tuple[Any, Any],
    lora: Any,
    clip: Any,
    vae: Any,
    candidates: Candidates,
    scorers: tuple[Any, Any | None, Any | None, Any | None],
    drawing: tuple[int, int],
    patience: int,
    so_far: Kept | None,
    progress: NodeProgress,
) -> Kept:
    """Measure a round and decide which of it and the earlier rounds (`so_far`) is kept.

    models: (before all rounds, after this round). scorers: (reward scorer, and a second one, judge, quality, each or
    None). drawing: (pictures per prompt, seed). Raises UserError if `lora` does not belong to the model after the
    round, if `so_far` was measured from another start, or if there is a single held-out prompt or picture of each.
    """
    check_enough(len(candidates.prompts.held_out), drawing[0], "Keep Best Round")
    before, after = models
    _check_lora(after, lora)
    first, second, judge, quality = scorers
    found = concept_scorers(first if second is None else [first, second], judge, candidates.concept, quality)
    seeds, seed = drawing
    settings = candidates.settings.model_copy(update={"seed": seed})
    _, name = evaluation_set(before, clip, vae, candidates, settings, seeds, progress)
    start = start_of(name, found)
    _check_start(so_far, start)
    with RunFolder(candidates.folder) as run:
        sets, measured = measure(run, models, clip, vae, candidates, settings, found, seeds, progress)
    earlier = so_far.standings if so_far else ()
    rule, resamples = StopSettings(patience=patience), EvaluationSettings().bootstrap
    now = measured.standing(len(earlier) + 1, *sets, rule, lora.winner_alarm, resamples)
    decision = _decide((*earlier, now), rule, lora.stopped)
    model, given = _kept(decision, now, (before, after), lora, so_far)
    made = made_by(so_far, sets, measured, candidates, lora)
    gains = measured.gains(*sets)
    lines = (*(so_far.lines if so_far else [_heading(measured)]), _line(now, gains))
    verdicts = (*(so_far.gains if so_far else ()), {name: gain_dict(gain) for name, gain in gains.items()})
    standings = (*earlier, now)
    with RunFolder(candidates.folder) as run:
        record_loop(run, candidates, lora, made, (found, standings, decision))
        names, watched = [m.evaluation for m in made], [to_json(standing) for standing in standings]
        run.set_fact(f"rounds_{start}", {"sets": names, "kept": to_json(decision), "watch": watched})
    return Kept(start, standings, decision, lines, model, given, candidates, lora.curves, made, verdicts)


def ended(so_far: Kept, why: str) -> Kept:
    """End the loop before this round, which has no pairs (`why`); the round kept so far stays."""
    reason = f"in round {len(so_far.standings) + 1} {why.rstrip('.')}"
    return _over(so_far, reason)


def stopped(so_far: Kept) -> Kept:
    """End the loop because its user asked for it; the round kept so far stays."""
    return _over(so_far, f"by you, after round {len(so_far.standings)}")


def _over(so_far: Kept, reason: str) -> Kept:
    """The loop ends with what it has; the report says why."""
    kept = replace(so_far, decision=replace(so_far.decision, stop=True, reason=reason))
    with RunFolder(kept.candidates.folder) as run:
        record_end(run, kept.standings, kept.decision)
    return kept


def report(kept: Kept) -> str:
    """Which round is kept and why, then the gain of each round."""
    said = kept_words(kept.decision, kept.standings)
    shown = kept.decision.kept or kept.decision.best or len(kept.gains)
    gains = kept.gains[shown - 1]
    told = next_step(gains, about_scores(gains), _rounds(kept))
    return "\n".join([said, told, *kept.lines])


def _rounds(kept: Kept) -> Rounds | None:
    return Rounds.of(to_json(kept.decision), [to_json(standing) for standing in kept.standings])


@theme("dark")
def picture(kept: Kept) -> Any:
    """The gains of all rounds as a PIL picture."""
    return figure_image(watch_figure(kept.standings, kept.decision))


def unchanged(before: Any, lora: DPOLora) -> DPOLora:
    """The LoRA of the original model: the adapter that it already carries, else one that changes nothing.

    A LoRA that changes nothing has the layers of `lora` with B = 0.
    """
    same = DPOLora(lora)
    riding = live_adapter(before)
    if riding is None:
        same.update({k: torch.zeros_like(v) for k, v in lora.items() if ".lora_up" in k})
        same.note = "it changes nothing, because the original is kept"
    else:
        prefixes = lora_prefixes(before.model, {k.rpartition(".")[0]: None for k in riding.state})
        for key, value in riding.state.items():
            layer, _, part = key.rpartition(".")
            same[f"{prefixes[layer]}.lora_{part}.weight"] = value
        same.note = "it is the one that came in, because the original is kept"
    same.export = lora.export
    same.rank, same.alpha, same.metadata = lora.rank, lora.alpha, {**lora.metadata, "dreambooth_dpo.kept": same.note}
    return same


def _check_lora(after: Any, lora: Any) -> None:
    if not isinstance(lora, DPOLora):
        raise UserError(
            f"lora is a {type(lora).__name__} of another node: connect the lora output of this round's "
            "DPO LoRA Train Step."
        )
    riding = live_adapter(after)
    if riding is None or riding.fingerprint != lora.fingerprint:
        raise UserError(
            "after and lora come from two different trainings: connect the model and the lora output of the same "
            "DPO LoRA Train Step."
        )


def _check_start(so_far: Kept | None, start: str) -> None:
    if so_far is not None and so_far.start != start:
        raise UserError(
            "so_far was measured with other inputs or settings, so its rounds cannot be compared with this one. "
            "Connect and set the same as in the first Keep Best Round: before, clip, vae, scorers, judge, "
            "seeds_per_prompt and seed; also its candidates, if those of this round have other sampler settings."
        )


def _decide(standings: Sequence[Standing], rule: StopSettings, stopped: str | None) -> Decision:
    """The decision of the stop rule; a training that a guard stopped also stops the loop."""
    decision = decide(standings, rule, TrainSettings().winner_error_warning)
    if stopped and not decision.stop:
        why = stopped.partition(":")[0]
        return replace(
            decision, stop=True, reason=f"a guard stopped the training of round {standings[-1].round} ({why})"
        )
    return decision


def _kept(
    decision: Decision, now: Standing, models: tuple[Any, Any], lora: DPOLora, so_far: Kept | None
) -> tuple[Any, DPOLora]:
    """MODEL and LoRA of the kept round.

    That is this round, the original, or an earlier round: then it was the kept one in `so_far`, too.
    """
    before, after = models
    if decision.kept == now.round:
        return after, lora
    if decision.kept == 0 or so_far is None:
        return before, unchanged(before, lora)
    return so_far.model, so_far.lora


def _heading(measured: Measured) -> str:
    prompts = len(set(measured.prompt_of.tolist()))
    said = (
        f"{len(measured.prompt_of)} held-out pictures of {prompts} prompts for each round, same seeds; "
        "gains over the original:"
    )
    return said if prompts > 1 else f"{said} one prompt gives no interval, so no round can be shown to be better."


def _line(now: Standing, gains: Mapping[str, Gain]) -> str:
    """A round's gain with its interval in standard deviations, and the change of each score.

    Failed guards are reported by `kept_words`.
    """
    by, interval = interval_of(now.gain.mean, now.gain.low, now.gain.high)
    scores = ", ".join(f"{role_of(name)[1]} {gain.gain:+.3f}" for name, gain in gains.items())
    return f"Round {now.round}: {by} SD{interval and f' ({interval})'}; {scores}."
