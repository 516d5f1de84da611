"""Would it pay to spare candidates? Pairs per second and their quality, read off toybox candidates drawn in full.

Every prompt of a concept gets 20 candidates from its personalized start; the predicted x0 is decoded and scored
part-way as well, and so are drafts in few steps from the same noise. From these records and the seconds of each phase,
every way of sparing is played through (sampling_ways.py):

- plain n: n candidates each;
- drafted: n drafts each, of which those that stand in pairs, at a margin, are drawn in full;
- stopped: of n candidates that half is stopped part-way that by the predicted x0 can hardly stand in a pair (`hopes`); or a random half,
  as control;
- waves: half of n first, the rest only for prompts with fewer than so many pairs;
- until: four at a time, until a prompt has so many pairs of a margin.

Quality is the share of pairs whose winner is right by the oracle and whose loser is not ("better"), and the reverse
("worse"). A longer margin buys quality with pairs: "pairs/s at q" is the most pairs a second of any margin at which at
least q of the pairs are better. Pairs, shares and "at cap", the share of prompts with as many pairs as a prompt may
have, are those of the smallest margin. A picture is taken to cost the same in a small batch as in a large one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...dpo_core.pairs.rules import PAIR_RULES
from ...dpo_core.settings import PairSettings
from ..common.clock import Clock
from .ways import PER_PROMPT, Records, drafted, first_of, stopped, until

PROMPTS_A_BATCH = 2
STEPS_AT = (3, 4, 6)
"""Steps, of the toybox's twelve, after which x0 is looked at."""
DRAFT_STEPS = (2, 3, 4)
"""Steps of drafts."""
DRAFT_MARGINS = (0.5, 1.0, 1.5)
MARGINS = tuple(i / 4 for i in range(2, 17))
"""Tried for quality. Unit: standard deviations, of the length or of the reward, whichever the rule compares."""
QUALITIES = (0.5, 0.6, 0.7, 0.8)
PLAIN = (3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20)
UNTIL = ((3, 1.0), (3, 2.0), (6, 0.5), (6, 1.0), (6, 1.5), (6, 2.0), (6, 2.5))
"""Pairs that end a prompt's waves of four, and their margin."""


def draw(seed: int, out: Path, guidance: float = 1.0, noises: int = 0) -> tuple[Records, dict[str, float]]:
    """Candidates of a concept's training prompts, and seconds a picture of denoise, draft_<steps>, decode and score;
    kept ones not anew.
    """
    from ...toybox.concepts import concept_from_seed
    from ...toybox.run import start_of

    drawn = "".join(
        f"_{name}_{value:g}"
        for name, value, usual in (("guidance", guidance, 1), ("noises", noises, 0))
        if value != usual
    )
    kept = out / f"concept_{seed}{drawn}.npz"
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
    oracle = next(s for s in scorers.judges if s.name == "oracle_all_right")
    planned = plan(toy_prompts(toy).train, PER_PROMPT, settings.seed, 0, PER_PROMPT * PROMPTS_A_BATCH)
    predicted = _keep_predictions(model)
    drafts = [f"draft_{k}" for k in DRAFT_STEPS]
    found, scored, clock = {}, 0, Clock("cpu", ("denoise", "decode", "score", *drafts))
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
        for name, steps in zip(drafts, DRAFT_STEPS, strict=True):
            quick = settings.model_copy(update={"steps": steps})
            pictures = model.decode(clock.wrapped(name, model.sample)(prompts, [c.seed for c in members], quick))
            rows |= {f"{s.name}_{name}": s.score(pictures, prompts) for s in scorers.rewards}
        for name, values in rows.items():
            found.setdefault(name, []).extend(values)
    shares = {name: max(1, scored) if name == "score" else len(planned) for name in clock.seconds}
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


def outcome(records: Records, kept: np.ndarray, margin: float, settings: PairSettings) -> np.ndarray:
    """[pairs, better, worse, prompts at the limit of pairs] of the kept candidates at a margin, int [4]."""
    right, prompt_of = records["right"][kept], records["prompt"][kept]
    pairs, _ = PAIR_RULES[settings.rule](
        prompt_of, records["fidelity"][kept], records["alignment"][kept], settings.model_copy(update={"margin": margin})
    )
    winners, losers = [p.winner for p in pairs], [p.loser for p in pairs]
    full = np.bincount(prompt_of[winners]) >= settings.max_pairs_per_prompt
    return np.asarray(
        [len(pairs), (right[winners] > right[losers]).sum(), (right[winners] < right[losers]).sum(), full.sum()]
    )


def row(name: str, concepts: list[Records], kept: list[np.ndarray], seconds: float, settings: PairSettings) -> dict:
    """Pairs, quality and pairs a second of one way over all concepts; `seconds` is what all its candidates cost."""
    found = [sum(outcome(r, k, margin, settings) for r, k in zip(concepts, kept, strict=True)) for margin in MARGINS]
    rates = {
        q: max((float(f[0] / seconds) for f in found if f[0] and f[1] >= q * f[0]), default=0.0) for q in QUALITIES
    }
    pairs, better, worse, full = (int(v) for v in found[0])
    return {
        "way": name, "seconds": seconds, "pictures": int(sum(k.sum() for k in kept)), "pairs": pairs, "better": better / max(1, pairs),
        "worse": worse / max(1, pairs), "at_cap": full / sum(len(np.unique(r["prompt"])) for r in concepts),
        "curve": [[m, int(f[0]), int(f[1])] for m, f in zip(MARGINS, found, strict=True)],
        "pairs_per_s": pairs / seconds, "pairs_per_s_at": {str(q): v for q, v in rates.items()},
    }  # fmt: skip


def ways(
    concepts: list[Records], seconds: dict[str, float], settings: PairSettings, steps: int
) -> Iterator[tuple[str, list[np.ndarray], float]]:
    """(name, which candidates are kept of each concept, seconds that all cost) of every way."""
    look, denoise = seconds["decode"] + seconds["score"], seconds["denoise"]

    def whole(name: str, kept: list[np.ndarray]) -> tuple[str, list[np.ndarray], float]:
        return name, kept, float(sum(k.sum() for k in kept) * (denoise + look))

    for n in PLAIN:
        yield whole(f"plain {n}", [first_of(r, n) for r in concepts])
    for enough, margin in UNTIL:
        bound = settings.model_copy(update={"margin": margin})
        yield whole(f"until {enough} of margin {margin:g}", [until(r, 4, enough, bound) for r in concepts])
    for n in PLAIN[5:]:
        for k, margin in itertools.product(DRAFT_STEPS, DRAFT_MARGINS):
            kept = [drafted(r, n, k, settings.model_copy(update={"margin": margin})) for r in concepts]
            begun = sum(first_of(r, n).sum() for r in concepts) * (seconds[f"draft_{k}"] + look)
            yield (
                f"{n} drafted in {k}, margin {margin:g}",
                kept,
                float(begun + sum(x.sum() for x in kept) * (denoise + look)),
            )
    for n in (10, 14, 20):
        for enough in (3, 6):
            yield whole(f"waves of {n}, {enough} enough", [until(r, n // 2, enough, settings, n) for r in concepts])
        for step in STEPS_AT:
            begun = sum(first_of(r, n).sum() for r in concepts) * (denoise * step / steps + look)
            for by_chance in (False, True):
                kept = [stopped(r, n, step, settings, by_chance) for r in concepts]
                cost = begun + sum(k.sum() for k in kept) * (denoise * (1 - step / steps) + look)
                yield f"{n}, half stopped at {step}{' by chance' * by_chance}", kept, float(cost)


def table(concepts: list[Records], seconds: dict[str, float], settings: PairSettings, steps: int = 12) -> list[dict]:
    """A row a way of drawing, each with its ratios by quality, to the plain way of the nearest cost and to the best
    plain one of any cost.

    How many pairs one way has at a quality hangs on few of them, and so does a ratio to it; the best of all plain ways
    is steadier.
    """
    rows = [row(name, concepts, kept, cost, settings) for name, kept, cost in ways(concepts, seconds, settings, steps)]
    plain = [r for r in rows if r["way"].startswith("plain")]
    best = {q: max(p["pairs_per_s_at"][q] for p in plain) for q in map(str, QUALITIES)}
    for one in rows:
        other = min(plain, key=lambda p, s=one["seconds"]: abs(p["seconds"] - s))
        at, base = one["pairs_per_s_at"], other["pairs_per_s_at"]
        one |= {"plain": other["way"], "ratios": {q: at[q] / base[q] if base[q] else None for q in at}}
        one["ratios_to_best"] = {q: at[q] / best[q] if best[q] else None for q in at}
    return rows


def show(rows: list[dict], about: str) -> None:
    """Print the table, headed by `about`."""
    from rich.console import Console
    from rich.table import Table

    columns = [f"at {q} (ratios)" for q in QUALITIES]
    title = f"{about}; pairs a second, also at shares of better ones, with ratios to the plain way of the nearest cost and to the best"
    shown = Table("way", "seconds", "pairs", "at cap", "better", "worse", "pairs/s", *columns, "plain", title=title)
    for r in rows:
        rates = []
        for q, rate in r["pairs_per_s_at"].items():
            ratios = ", ".join(f"{k[q]:.2f}" for k in (r["ratios"], r["ratios_to_best"]) if k[q] is not None)
            rates.append(f"{rate:.2f} ({ratios})" if ratios else f"{rate:.2f}")
        shares = (f"{r['at_cap']:.2f}", f"{r['better']:.3f}", f"{r['worse']:.3f}", f"{r['pairs_per_s']:.2f}")
        shown.add_row(r["way"], f"{r['seconds']:.0f}", str(r["pairs"]), *shares, *rates, r["plain"])
    Console(width=170).print(shown)


def show_frontier(levels: list[dict], chosen: dict, about: str) -> None:
    """Print the quickest ways by quality, and the way of drafting that was chosen before."""
    from rich.console import Console
    from rich.table import Table

    def told(way: dict | None) -> tuple[str, str]:
        return (f"{way['way']}, margin {way['margin']:g}", f"{way['pairs_per_s']:.2f}") if way else ("none", "")

    shown = Table("better, at least", "best plain way", "pairs/s", "best drafted way", "pairs/s", "ratio", title=about)
    for level in levels:
        plain, drafts = level["plain"], level["drafted"]
        ratio = f"{drafts['pairs_per_s'] / plain['pairs_per_s']:.2f}" if plain and drafts else ""
        shown.add_row(f"{level['quality']:.2f}", *told(plain), *told(drafts), ratio)
    console, (low, high) = Console(width=150), chosen["ci95"]
    console.print(shown)
    interval = "" if low is None else f" ({low:.2f} to {high:.2f}, 95 % over concepts)"
    console.print(
        f"chosen before: {chosen['chosen']}: {chosen['pairs']} pairs, {chosen['better']:.3f} better, {chosen['pairs_per_s']:.2f} a second; "
        f"{chosen['ratio']:.2f}{interval} times the best plain way as good, {chosen['plain']}"
    )
