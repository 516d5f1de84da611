"""Would it pay to spare candidates? Pairs per second and their quality, read off toybox candidates drawn in full.

Every prompt of a concept gets 20 candidates from its personalized start; the predicted x0 is decoded and scored part-way as well. From
these records and the seconds of each phase, every way of sparing is played through:

- plain n: n candidates each;
- stopped: of n candidates that half is stopped part-way that reaches least into the angle window, as winner or as loser, by the mean over
  its partners (the middling ones; `least_hopeful`), judged by the predicted x0; or a random half, as control;
- waves: half of n first, the rest only for prompts with fewer than so many pairs.

Quality is the share of pairs whose winner is right by the oracle and whose loser is not ("better"), and the reverse ("worse"). A longer
margin buys quality with pairs: "pairs/s at q" is the most pairs a second of any margin at which at least q of the pairs are better.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..dpo_core.pair_rules import angle_window_pairs
from ..dpo_core.pairs import angle_degrees, standardise
from ..dpo_core.settings import PairSettings
from .clock import Clock

PER_PROMPT, PROMPTS_A_BATCH = 20, 2
STEPS_AT = (3, 4, 6)
"""Steps, of the toybox's twelve, after which x0 is looked at."""
MARGINS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
QUALITIES = (0.5, 0.55, 0.6)
PLAIN = (5, 6, 7, 8, 10, 12, 14, 16, 20)

Records = dict[str, np.ndarray]
"""Of one concept, by candidate: prompt, right, fidelity, alignment, fidelity_<step>, alignment_<step>."""


def draw(seed: int, out: Path) -> tuple[Records, dict[str, float]]:
    """Candidates of a concept's training prompts, and seconds a picture of denoise, decode and score. Kept ones are not made again."""
    from ..toybox.concepts import concept_from_seed
    from ..toybox.run import start_of

    kept = out / f"concept_{seed}.npz"
    if not kept.is_file():
        toy = concept_from_seed(seed)
        lora, _ = start_of(toy, out / f"start_{seed}")
        records, seconds = _draw(toy, lora)
        np.savez(kept, **records, **{f"seconds_{k}": v for k, v in seconds.items()})
    with np.load(kept) as file:
        found = dict(file)
    seconds = {k.removeprefix("seconds_"): float(found.pop(k)) for k in list(found) if k.startswith("seconds_")}
    return found, seconds


def _draw(toy, lora: Path) -> tuple[Records, dict[str, float]]:
    from ..dpo_core.backends.diffusers import DiffusersTextToImage
    from ..dpo_core.sampling import plan
    from ..toybox.defaults import TOY_SETTINGS
    from ..toybox.run import toy_pipeline, toy_prompts, toy_scorers

    model, scorers, settings = DiffusersTextToImage(toy_pipeline("cpu", lora)), toy_scorers(toy), TOY_SETTINGS.sampling
    oracle = next(s for s in scorers.judges if s.name == "oracle_all_right")
    planned = plan(toy_prompts(toy).train, PER_PROMPT, settings.seed, 0, PER_PROMPT * PROMPTS_A_BATCH)
    predicted = _keep_predictions(model)
    found, scored, clock = {}, 0, Clock("cpu", ("denoise", "decode", "score"))
    for chunk in range(planned[-1].chunk + 1):
        members = [c for c in planned if c.chunk == chunk]
        prompts = [c.prompt for c in members]
        latents = clock.wrapped("denoise", model.sample)(prompts, [c.seed for c in members], settings)
        images = clock.wrapped("decode", model.decode)(latents)
        rows = {"prompt": [c.prompt_index for c in members], "right": oracle.score(images, prompts)}
        for scorer in scorers.rewards:
            # The first score embeds the references, too.
            rows[scorer.name] = (clock.wrapped("score", scorer.score) if chunk else scorer.score)(images, prompts)
        scored += len(members) if chunk else 0
        for step in STEPS_AT:
            half = model.decode(predicted[step])
            rows |= {f"{s.name}_{step}": s.score(half, prompts) for s in scorers.rewards}
        for name, values in rows.items():
            found.setdefault(name, []).extend(values)
    shares = {"denoise": len(planned), "decode": len(planned), "score": max(1, scored)}
    return {k: np.asarray(v) for k, v in found.items()}, {k: v / shares[k] for k, v in clock.seconds.items()}


def _keep_predictions(model) -> dict:
    """A dictionary that holds the predicted x0 after each step of STEPS_AT of the model's last call."""
    kept: dict = {}
    step = model.scheduler.step

    def stepped(*args, **kwargs):
        result = step(*args, **kwargs)
        if (done := model.scheduler.step_index) in STEPS_AT:
            kept[done] = model.scheduler.model_outputs[-1].clone()  # DPM-Solver++ keeps x0, not noise
        return result

    model.scheduler.step = stepped
    return kept


def least_hopeful(fidelity: np.ndarray, alignment: np.ndarray, count: int, window: tuple[float, float] = (20.0, 70.0)) -> np.ndarray:
    """Indices of the `count` candidates of one prompt that can hardly stand in a pair: int [count], rising.

    fidelity, alignment: float [k], in standard deviations. How far an improvement reaches into the window is its length in the window's
    nearest direction, 0 beyond a right angle. A candidate's hope is the mean of that over its partners, as winner or as loser, whichever is
    more: the middling ones have the least. Of equal ones the first go.
    """
    d_fidelity, d_alignment = fidelity[:, None] - fidelity, alignment[:, None] - alignment
    angle = angle_degrees(d_alignment, d_fidelity)
    beside = np.radians(np.clip(np.maximum(window[0] - angle, angle - window[1]), 0, 90))
    reach = np.hypot(d_fidelity, d_alignment) * np.cos(beside)
    hope = np.maximum(reach.mean(axis=0), reach.mean(axis=1))
    return np.sort(np.argsort(hope, kind="stable")[:count])


def stopped(records: Records, per_prompt: int, step: int, by_chance: bool = False) -> np.ndarray:
    """Which candidates go on, bool [n]: of the first `per_prompt` of each prompt, half (rounded down) is stopped after `step` steps."""
    kept, place = _first(records, per_prompt), np.arange(len(records["prompt"]))
    fidelity, alignment = np.zeros(len(kept)), np.zeros(len(kept))
    for values, name in ((fidelity, "fidelity"), (alignment, "alignment")):
        values[kept] = standardise(records[f"{name}_{step}"][kept], records["prompt"][kept])
    goes_on = kept.copy()
    for prompt in np.unique(records["prompt"]):
        members = place[kept & (records["prompt"] == prompt)]
        count = len(members) // 2
        if by_chance:
            dropped = np.random.default_rng((step, int(prompt))).permutation(len(members))[:count]
        else:
            dropped = least_hopeful(fidelity[members], alignment[members], count)
        goes_on[members[dropped]] = False
    return goes_on


def waves(records: Records, per_prompt: int, enough: int, settings: PairSettings) -> np.ndarray:
    """Which candidates are drawn, bool [n]: half of `per_prompt`, and the rest for prompts with fewer than `enough` pairs of the half."""
    first = _first(records, per_prompt // 2)
    pairs, _ = angle_window_pairs(records["prompt"][first], records["fidelity"][first], records["alignment"][first], settings)
    found = np.bincount([records["prompt"][first][p.winner] for p in pairs], minlength=int(records["prompt"].max()) + 1)
    return first | (_first(records, per_prompt) & (found < enough)[records["prompt"]])


def _first(records: Records, per_prompt: int) -> np.ndarray:
    return np.arange(len(records["prompt"])) % PER_PROMPT < per_prompt


def outcome(records: Records, kept: np.ndarray, margin: float, settings: PairSettings) -> np.ndarray:
    """[pairs, better, worse] of the kept candidates at a margin, int [3]."""
    right = records["right"][kept]
    arrays = (records[name][kept] for name in ("prompt", "fidelity", "alignment"))
    pairs, _ = angle_window_pairs(*arrays, settings.model_copy(update={"margin": margin}))
    return np.asarray(
        [len(pairs), sum(right[p.winner] > right[p.loser] for p in pairs), sum(right[p.winner] < right[p.loser] for p in pairs)]
    )


def row(name: str, concepts: list[Records], kept: list[np.ndarray], seconds: float, settings: PairSettings) -> dict:
    """Pairs, quality and pairs a second of one way over all concepts; `seconds` is what all its candidates cost."""
    found = [sum(outcome(r, k, margin, settings) for r, k in zip(concepts, kept, strict=True)) for margin in MARGINS]
    rates = {q: max((float(f[0] / seconds) for f in found if f[0] and f[1] >= q * f[0]), default=0.0) for q in QUALITIES}
    pairs, better, worse = (int(v) for v in found[0])
    return {
        "way": name, "seconds": seconds, "pictures": int(sum(k.sum() for k in kept)), "pairs": pairs, "better": better / max(1, pairs),
        "worse": worse / max(1, pairs), "pairs_per_s": pairs / seconds, "pairs_per_s_at": {str(q): v for q, v in rates.items()},
    }  # fmt: skip


def table(concepts: list[Records], seconds: dict[str, float], settings: PairSettings, steps: int = 12) -> list[dict]:
    """A row a way of drawing, each with its ratios to the plain way of the nearest cost, by quality."""
    look, denoise = seconds["decode"] + seconds["score"], seconds["denoise"]
    rows = []
    for n in PLAIN:
        kept = [_first(r, n) for r in concepts]
        rows.append(row(f"plain {n}", concepts, kept, sum(k.sum() for k in kept) * (denoise + look), settings))
    plain = list(rows)
    for n in (10, 14, 20):
        for enough in (3, 6):
            kept = [waves(r, n, enough, settings) for r in concepts]
            rows.append(row(f"waves of {n}, {enough} enough", concepts, kept, sum(k.sum() for k in kept) * (denoise + look), settings))
        for step in STEPS_AT:
            begun = sum(_first(r, n).sum() for r in concepts) * (denoise * step / steps + look)
            for by_chance in (False, True):
                kept = [stopped(r, n, step, by_chance) for r in concepts]
                cost = begun + sum(k.sum() for k in kept) * (denoise * (1 - step / steps) + look)
                rows.append(row(f"{n}, half stopped at {step}{' by chance' * by_chance}", concepts, kept, cost, settings))
    for one in rows:
        other = min(plain, key=lambda p, s=one["seconds"]: abs(p["seconds"] - s))
        at, base = one["pairs_per_s_at"], other["pairs_per_s_at"]
        one |= {"plain": other["way"], "ratios": {q: at[q] / base[q] if base[q] else None for q in at}}
    return rows


def show(rows: list[dict], about: str) -> None:
    """Print the table, headed by `about`."""
    from rich.console import Console
    from rich.table import Table

    columns = [f"pairs/s at {q} (ratio)" for q in QUALITIES]
    title = f"{about}; ratios to the plain way of the nearest cost, at equal quality"
    shown = Table("way", "seconds", "pairs", "better", "worse", "pairs/s", *columns, "plain", title=title)
    for r in rows:
        rates = [f"{v:.2f}" + (f" ({r['ratios'][q]:.2f})" if r["ratios"][q] else "") for q, v in r["pairs_per_s_at"].items()]
        shares = (f"{r['better']:.3f}", f"{r['worse']:.3f}", f"{r['pairs_per_s']:.2f}")
        shown.add_row(r["way"], f"{r['seconds']:.0f}", str(r["pairs"]), *shares, *rates, r["plain"])
    Console(width=170).print(shown)
