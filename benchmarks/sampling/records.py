"""Records of toybox candidates: scores of every finished picture, of the predicted x0 part-way, and of drafts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..common.clock import Clock
from ..common.concepts import TRUTH

PER_PROMPT = 20
"""Candidates of each prompt."""
PROMPTS_A_BATCH = 2
STEPS_AT = (3, 4, 6)
"""Steps, of the toybox's twelve, after which the predicted x0 is scored."""
DRAFT_STEPS = (2, 3, 4)
"""Steps of drafts."""

Records = dict[str, np.ndarray]
"""Of one concept, by candidate: prompt, right, fidelity, alignment; fidelity_<step> and alignment_<step> of the
predicted x0 after that many steps; fidelity_draft_<steps> and alignment_draft_<steps> of a draft."""


def first_of(records: Records, per_prompt: int) -> np.ndarray:
    """The first `per_prompt` candidates of each prompt, bool [n]."""
    return np.arange(len(records["prompt"])) % PER_PROMPT < per_prompt


def draw(seed: int, out: Path, guidance: float = 1.0, noises: int = 0) -> tuple[Records, dict[str, float]]:
    """Candidates of a concept's training prompts, and seconds per picture of denoise, draft_<steps>, decode and score.

    Cached in `out`.
    """
    from ...toybox.concepts import concept_from_seed
    from ...toybox.run import start_of

    unusual = (f"_guidance_{guidance:g}" if guidance != 1 else "") + (f"_noises_{noises}" if noises else "")
    kept = out / f"concept_{seed}{unusual}.npz"
    if not kept.is_file():
        toy = concept_from_seed(seed)
        lora, _ = start_of(toy, out / f"start_{seed}")
        records, seconds = _draw(toy, lora, guidance, noises)
        np.savez(kept, **records, **{f"seconds_{k}": v for k, v in seconds.items()})
    with np.load(kept) as file:
        found = dict(file)
    seconds = {k.removeprefix("seconds_"): float(found.pop(k)) for k in list(found) if k.startswith("seconds_")}
    return found, seconds


def _draw(toy, lora: Path, guidance: float, noises: int) -> tuple[Records, dict[str, float]]:
    from ...dpo_core.backends.diffusers.model import DiffusersTextToImage
    from ...dpo_core.sampling.sets import plan
    from ...toybox.defaults import TOY_SETTINGS
    from ...toybox.run import toy_pipeline, toy_prompts, toy_scorers

    model, scorers, settings = DiffusersTextToImage(toy_pipeline("cpu", lora)), toy_scorers(toy), TOY_SETTINGS.sampling
    settings = settings.model_copy(update={"guidance": guidance, "seed": settings.seed + noises})
    oracle = next(s for s in scorers.judges if s.name == TRUTH)
    planned = plan(toy_prompts(toy).train, PER_PROMPT, settings.seed, 0, PER_PROMPT * PROMPTS_A_BATCH)
    predicted = _keep_predictions(model)
    drafts = [f"draft_{k}" for k in DRAFT_STEPS]
    found, scored, clock = {}, 0, Clock("cpu", ("denoise", "decode", "score", *drafts))
    for chunk in range(planned[-1].chunk + 1):
        members = [c for c in planned if c.chunk == chunk]
        prompts, seeds = [c.prompt for c in members], [c.seed for c in members]
        latents = clock.wrapped("denoise", model.sample)(prompts, seeds, settings)
        images = clock.wrapped("decode", model.decode)(latents)
        rows = {"prompt": [c.prompt_index for c in members], "right": oracle.score(images, prompts)}
        for scorer in scorers.rewards:
            # Not timed in the first chunk, where it embeds the references as well.
            rows[scorer.name] = (clock.wrapped("score", scorer.score) if chunk else scorer.score)(images, prompts)
        scored += len(members) if chunk else 0
        for step in STEPS_AT:
            half = model.decode(predicted[step])
            rows |= {f"{s.name}_{step}": s.score(half, prompts) for s in scorers.rewards}
        for name, steps in zip(drafts, DRAFT_STEPS, strict=True):
            quick = settings.model_copy(update={"steps": steps})
            pictures = model.decode(clock.wrapped(name, model.sample)(prompts, seeds, quick))
            rows |= {f"{s.name}_{name}": s.score(pictures, prompts) for s in scorers.rewards}
        for name, values in rows.items():
            found.setdefault(name, []).extend(values)
    counts = {name: max(1, scored) if name == "score" else len(planned) for name in clock.seconds}
    return {k: np.asarray(v) for k, v in found.items()}, {k: v / counts[k] for k, v in clock.seconds.items()}


def _keep_predictions(model) -> dict:
    """A dictionary with the predicted x0 after each step of STEPS_AT of the model's last call."""
    kept: dict = {}
    step = model.scheduler.step

    def stepped(*args, **kwargs):
        result = step(*args, **kwargs)
        if (done := model.scheduler.step_index) in STEPS_AT:
            kept[done] = model.scheduler.model_outputs[-1].clone()  # DPM-Solver++ keeps x0, not noise
        return result

    model.scheduler.step = stepped
    return kept
