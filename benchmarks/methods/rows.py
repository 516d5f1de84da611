"""The compared methods. Every row has the same start, prompts and seeds, and spends the same compute, but for those in
CHEAPER.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...dpo_core.settings import LoopSettings, PersonalizeSettings
from ..common.concepts import EARLIER_VALUES, changed
from .cheaper import Described, again, cheap_rounds, distilled, more_rounds
from .reuse import DRAWS
from .tuning import TUNING, objective

DEFAULT = "lambda_harmonic"
"""The row of unchanged settings."""
OTHER_CANDIDATES = ("earlier", "ten_in_all_steps")
"""Rows of as much drawing, with another number of candidates."""
PLAIN = (*OTHER_CANDIDATES, "no_diversity", "no_guard", "sum_plain")
"""Rows that the earlier settings make others of."""
POOLS = ("spread_0.3", "spread_0.5", "base_2", "photos", "wide_pool")
"""Rows with other candidates, whose first round is drawn anew."""
CHEAPER = (
    "candidates_4", "few_steps_6", "few_steps_4", "cheap_rounds", "cheap_rounds_fast", "cheap_rounds_faster",
    "cheap_shorter", "candidates_5", "reuse_5", "reuse_3",
)  # fmt: skip
"""Rows that draw candidates for less, so that they spend no more than the others: run by name alone."""
FASTER = ("fast", "faster", "fast_matched_pairs", "fast_diverse_pairs", "fast_weighted_sum", "fast_angle_window")
"""Rows that choose a learning rate: run by name, and not among "all"."""
OLDER = (*CHEAPER, *FASTER, "paper")
BACKWARD = 2
"""Cost of a backward pass in forward passes."""


@dataclass(frozen=True)
class Row:
    """One method. reward: "plain", "augmented", "mean of two" or "worst of two", where the second scorer is the judge;
    or one of WITHOUT_MASKS. earlier: candidates of the round before that each prompt has beside its fresh ones, those
    whose denoising error changed least. few_steps: candidates are drawn with the toybox's LoRA for few steps.
    """

    settings: LoopSettings
    about: str
    reward: str = "plain"
    earlier: int = 0
    few_steps: bool = False


WITHOUT_MASKS = ("picture", "patches", "picture, several", "patches, several")
"""Rewards whose fidelity is by whole pictures or by patches, without masks, from the photos on one background or on
several. Judge and guards are those of the other rows.
"""


def _window(low: float, high: float) -> dict[str, dict]:
    return {"pairs": {"rule": "angle_window", "angle_low": low, "angle_high": high, "diversity": 0.0}}


CHANGES: dict[str, tuple[str, Mapping[str, Mapping]]] = {
    DEFAULT: ("DPO, lambda-harmonic reward (RPO, arXiv 2407.12164): the default", {}),
    "earlier": (
        "DPO as the toybox's settings were: 10 candidates in all steps, a quarter of the rate, plain",
        EARLIER_VALUES,
    ),
    "ten_in_all_steps": ("DPO, 10 candidates in all sampler steps", {"sampling": EARLIER_VALUES["sampling"]}),
    "no_diversity": ("DPO, no diversity in the reward", {"pairs": {"diversity": 0.0}}),
    "no_guard": ("DPO, no loser guard", {"train": {"loser_guard": None}}),
    "sum_plain": (
        "DPO, weighted sum without diversity",
        {"pairs": {"rule": "weighted_sum", "diversity": 0.0}},
    ),
    "angle_window": ("DPO, angle window 20..70 degrees (arXiv 2505.20975)", _window(20.0, 70.0)),
    "window_to_fidelity": ("DPO, angle window 0..30 degrees", _window(0.0, 30.0)),
    "window_to_alignment": ("DPO, angle window 60..90 degrees", _window(60.0, 90.0)),
    "wide_window": ("DPO, angle window 0..90 degrees", _window(0.0, 90.0)),
    "raft": ("RAFT: supervised on the winners", {"train": {**EARLIER_VALUES["train"], "objective": "raft"}}),
    "weighted_sum": ("DPO, pairs by the weighted sum of the axes", {"pairs": {"rule": "weighted_sum"}}),
    "random_pairs": ("DPO, random pairs: the control", {"pairs": {"rule": "random", "diversity": 0.0}}),
    "one_use": ("DPO, every candidate in at most one pair", {"pairs": {"max_uses": 1, "max_pairs_per_prompt": 5}}),
    "pareto": ("DPO, first over last Pareto front (CaPO)", {"pairs": {"rule": "pareto", "diversity": 0.0}}),
    "harmonic_fidelity": ("DPO, lambda-harmonic reward, lambda 0.8", {"pairs": {"fidelity_weight": 0.8}}),
    "harmonic_third": ("DPO, lambda-harmonic reward, lambda 0.35", {"pairs": {"fidelity_weight": 0.35}}),
    "harmonic_alignment": ("DPO, lambda-harmonic reward, lambda 0.2", {"pairs": {"fidelity_weight": 0.2}}),
    "harmonic_far": ("DPO, lambda-harmonic reward, margin 1.5", {"pairs": {"margin": 1.5}}),
    "sum_far": ("DPO, weighted sum, margin 1.5", {"pairs": {"rule": "weighted_sum", "margin": 1.5}}),
    "sum_third": (
        "DPO, weighted sum, fidelity's share 0.35",
        {"pairs": {"rule": "weighted_sum", "fidelity_weight": 0.35}},
    ),
    "ipo": objective("ipo", 500.0),
    "hinge": objective("hinge", 1000.0),
    "reward_gap": objective("reward_gap", 2000.0),
    "mapo": objective("mapo", 0.1),
    "kto": objective("kto", 2000.0),
    "nft": objective("nft", 1.0),
    "awm": objective("awm", 1.0),
    "dgpo": objective("dgpo", 2000.0),
    "margin_weighted": (
        "DPO, pairs weighted by their reward gap",
        {"train": {"margin_weight": 1.0}, "pairs": {"diversity": 0.0}},
    ),
    "matched_pairs": ("DPO, pairs among the half nearest in composition", {"pairs": {"matched": 0.5}}),
    "diversity_1": (
        "DPO, twice the weight of variety in the reward (after DRAGON, arXiv 2504.15217)",
        {"pairs": {"diversity": 1.0}},
    ),
    "loser_guard": (
        "DPO with the loser-gradient guard, mu 0.6 (Diffusion-SDPO), at a quarter of the rate",
        {"pairs": {"diversity": 0.0}, "train": {**EARLIER_VALUES["train"], "loser_guard": 0.6}},
    ),
    "ema_0.9": ("DPO, moving average of the adapter's weights, decay 0.9", {"train": {"ema_decay": 0.9}}),
    "ema_1": ("DPO, plain mean of the adapter's weights over each round", {"train": {"ema_decay": 1.0}}),
    "bank_of_1": ("DPO, reference bank of one draw of (t, noise) per pair", {"train": {"reference_bank": 1}}),
    "spread_0.3": ("DPO, candidates at 0.7, 1 and 1.3 times the LoRA's strength", {"sampling": {"lora_spread": 0.3}}),
    "spread_0.5": ("DPO, candidates at 0.5, 1 and 1.5 times the LoRA's strength", {"sampling": {"lora_spread": 0.5}}),
    "base_2": ("DPO, 2 of 10 candidates by the base model", {"sampling": {"base_candidates": 2}}),
    "photos": (
        "DPO, reference photos as candidates of a prompt of their own",
        {"sampling": {"photo_candidates": True}},
    ),
    "wide_pool": (
        "DPO, all three: spread 0.3, 2 by the base model, photos (after MagicID, arXiv 2503.12689)",
        {"sampling": {"lora_spread": 0.3, "base_candidates": 2, "photo_candidates": True}},
    ),
    "candidates_4": ("DPO, 4 candidates in place of 10", {"sampling": {"candidates_per_prompt": 4}}),
    "candidates_5": ("DPO, 5 candidates in place of 10", {"sampling": {"candidates_per_prompt": 5}}),
    "few_steps_6": ("DPO, candidates in 6 sampler steps in place of 12", {"sampling": {"candidate_steps": 6}}),
    "few_steps_4": ("DPO, candidates in 4 sampler steps in place of 12", {"sampling": {"candidate_steps": 4}}),
    "bank_of_4": ("DPO, reference bank of four draws of (t, noise) per pair", {"train": {"reference_bank": 4}}),
}
"""Changes that do not depend on the default's values: (description, {group: {setting: value}})."""


def rows(base: LoopSettings) -> dict[str, Row]:
    """Every row that trains on pairs, by name, the default first. The rows of longer DreamBooth are not among them.

    Those of OLDER change the toybox's earlier settings, whatever the base.
    """
    older = _rows(changed(base, **EARLIER_VALUES))
    return {name: older[name] if name in OLDER else row for name, row in _rows(base).items()}


def _rows(base: LoopSettings) -> dict[str, Row]:
    n, sampling, pairs, train = base.rounds, base.sampling, base.pairs, base.train

    def row(about: str, reward: str = "plain", rounds: int | None = None, **groups: Mapping) -> Row:
        return Row(changed(base, rounds, **groups), about, reward)

    def raft(part: int) -> Row:
        rate = EARLIER_VALUES["train"]["learning_rate"] / part
        slower = {**EARLIER_VALUES["train"], "objective": "raft", "learning_rate": rate}
        return row(f"RAFT at 1/{part} of the learning rate", train=slower)

    table, fast = CHANGES | TUNING, {"train": {"learning_rate": 2 * train.learning_rate}}
    table["diverse_pairs"] = "DPO, variety in the reward", {"pairs": {"diversity": 0.5}}
    return {name: row(about, **groups) for name, (about, groups) in (CHANGES | TUNING).items()} | {
        "raft_slow": raft(4),
        "raft_slower": raft(20),
        "constant_rate": row(
            "DPO, half the learning rate, constant within a round",
            train={"schedule": "constant", "learning_rate": train.learning_rate / 2},
        ),
        "one_long_round": row(
            "DPO, one round with the candidates and steps of all rounds",
            rounds=1,
            sampling={"candidates_per_prompt": sampling.candidates_per_prompt * n},
            pairs={"max_pairs_per_prompt": pairs.max_pairs_per_prompt * n},
            train={"steps": train.steps * n},
        ),
        "short_rounds": row(
            "DPO, twice the rounds with half the candidates and steps",
            rounds=2 * n,
            sampling={"candidates_per_prompt": sampling.candidates_per_prompt // 2},
            pairs={"max_pairs_per_prompt": pairs.max_pairs_per_prompt // 2},
            train={"steps": train.steps // 2},
        ),
        "fast": row("DPO, twice the learning rate", **fast),
        **{
            f"fast_{name}": row(f"{table[name][0]}; twice the learning rate", **_merged(table[name][1], fast))
            for name in ("matched_pairs", "diverse_pairs", "weighted_sum", "angle_window")
        },
        "faster": row("DPO, four times the learning rate", train={"learning_rate": 4 * train.learning_rate}),
        "cheap_rounds": _described(cheap_rounds(base, 8, train.learning_rate)),
        "cheap_rounds_fast": _described(cheap_rounds(base, 8, 2 * train.learning_rate)),
        "cheap_rounds_faster": _described(cheap_rounds(base, 8, 4 * train.learning_rate)),
        "cheap_shorter": _described(cheap_rounds(base, 14, 2 * train.learning_rate, parts=4)),
        "paper": _paper(base),
        "reuse_5": row(
            "DPO, 5 fresh candidates, and all 5 of the round before",
            sampling={"candidates_per_prompt": 5, "earlier_rounds": 1},
        ),
        "reuse_3": Row(
            changed(base, sampling={"candidates_per_prompt": 5}),
            "DPO, 5 fresh candidates, and the 3 of the round before whose error changed least",
            earlier=3,
        ),
        **{name: _described(row) for name, row in {**again(base), **more_rounds(base)}.items()},
        **{
            name: Row(settings, about, few_steps=name.startswith("distilled"))
            for name, (about, settings) in distilled(base).items()
        },
        "augmented": row("DPO, scores averaged over a flip and small shifts", "augmented"),
        "mean_of_two": row("DPO, mean of two scorers on each axis", "mean of two", pairs={"combine": "mean"}),
        "worst_of_two": row("DPO, worst of two scorers on each axis", "worst of two"),
        **{f"no_masks_{kind.replace(', ', '_')}": row(f"DPO, no masks: {kind}", kind) for kind in WITHOUT_MASKS},
    }


def _paper(base: LoopSettings) -> Row:
    """DreamBoothDPO as in the paper, with the default's compute: half as many prompts in a round, so more of each.

    Two rounds in place of n: n times the candidates of a prompt, twice the pairs, and n / 2 times the steps.
    """
    n, parts = base.rounds, 2
    drawn = {"candidates_per_prompt": base.sampling.candidates_per_prompt * n}
    pairs = {**_window(20.0, 70.0)["pairs"], "max_pairs_per_prompt": base.pairs.max_pairs_per_prompt * parts}
    settings = changed(base, parts, sampling=drawn, pairs=pairs, train={"steps": base.train.steps * n // parts})
    return Row(
        settings.model_copy(update={"prompt_parts": parts}),
        "DreamBoothDPO (arXiv 2505.20975): angle window 20..70, two rounds, each on its half of the prompts",
    )


def _described(made: Described) -> Row:
    about, settings = made
    return Row(settings, about)


def _merged(one: Mapping[str, Mapping], other: Mapping[str, Mapping]) -> dict[str, dict]:
    """The changes of both, group by group."""
    return {group: {**one.get(group, {}), **other.get(group, {})} for group in {**one, **other}}


def image_forwards(settings: LoopSettings, prompts: int) -> int:
    """Compute of a row: denoiser forwards per image, a backward counted as two. Left out: evaluation, which is the same
    for all rows, and what a reference bank saves.

    Candidates: sampler steps, twice with guidance. Training step: the images of each pair or group, reference forward,
    policy forward and backward. 24 prompts x 10 candidates x 12 steps and 60 steps of 8 pairs: 2,880 + 60 * 16 * 4 =
    6,720 per round.
    """
    drawing, train = settings.sampling.of_candidates(), settings.train
    each = drawing.candidates_per_prompt * drawing.steps * (2 if drawing.guidance > 1 else 1)
    sampled = prompts / settings.prompt_parts * each
    trained = train.steps * train.accumulation * train.width * train.batch_size * (1 + 1 + BACKWARD)
    return round(settings.rounds * (sampled + trained))


def row_forwards(row: Row, prompts: int) -> int:
    """As `image_forwards`, with those that choose among candidates of the round before: with 24 prompts and 5 each, by
    two draws before and after a round, 480 for each round but the first. Taking all of them costs nothing.
    """
    settings, chosen = row.settings, 0
    if row.earlier:
        each = settings.sampling.candidates_per_prompt
        chosen = round((settings.rounds - 1) * each * prompts / settings.prompt_parts * 2 * DRAWS)
    return image_forwards(settings, prompts) + chosen


def dreambooth_steps(settings: LoopSettings, personalize: PersonalizeSettings, prompts: int) -> int:
    """DreamBooth steps with the compute of the loop."""
    return image_forwards(settings, prompts) // (personalize.batch_size * (1 + BACKWARD))
