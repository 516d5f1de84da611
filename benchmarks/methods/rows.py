"""The compared methods: every row starts from the same start, prompts and seeds, and spends the same compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...dpo_core.settings import LoopSettings, PersonalizeSettings

DEFAULT = "lambda_harmonic"
"""The row of the settings as they are."""
BACKWARD = 2
"""Forwards that a backward pass costs."""


@dataclass(frozen=True)
class Row:
    """One method: the loop's settings, what rewards it ("plain", "augmented", "mean of two", "worst of two"), and why
    it stands here.
    """

    settings: LoopSettings
    about: str
    reward: str = "plain"


def _changed(base: LoopSettings, rounds: int | None = None, **groups: Mapping) -> LoopSettings:
    update = {name: getattr(base, name).model_copy(update=dict(values)) for name, values in groups.items()}
    return base.model_copy(update={**update, "rounds": rounds or base.rounds})


def rows(base: LoopSettings) -> dict[str, Row]:
    """Every row that trains on pairs, by name; the default first.

    No training and longer DreamBooth are not among them.
    """

    def row(about: str, reward: str = "plain", rounds: int | None = None, **groups: Mapping) -> Row:
        return Row(_changed(base, rounds, **groups), about, reward)

    def objective(name: str, beta: float) -> Row:
        return row(f"objective {name}, beta {beta:g}", train={"objective": name, "beta": beta})

    def raft(part: int) -> Row:
        changed = {"objective": "raft", "learning_rate": base.train.learning_rate / part}
        return row(f"RAFT at 1/{part} of the learning rate", train=changed)

    n = base.rounds
    return {
        DEFAULT: row("DPO, lambda-harmonic reward (RPO, arXiv 2407.12164): the default"),
        "angle_window": row("DPO, angle window 20..70 degrees (arXiv 2505.20975)", pairs={"rule": "angle_window"}),
        "raft": row("RAFT: supervised on the winners", train={"objective": "raft"}),
        "raft_slow": raft(4),
        "raft_slower": raft(20),
        "weighted_sum": row(
            "DPO, pairs by the weighted sum, the paper's rejected baseline", pairs={"rule": "weighted_sum"}
        ),
        "wide_window": row(
            "DPO, angle window 0..90 degrees", pairs={"rule": "angle_window", "angle_low": 0.0, "angle_high": 90.0}
        ),
        "random_pairs": row("DPO, random pairs: the control", pairs={"rule": "random"}),
        "one_long_round": row(
            "DPO, one round of as many candidates and steps",
            rounds=1,
            sampling={"candidates_per_prompt": base.sampling.candidates_per_prompt * n},
            pairs={"max_pairs_per_prompt": base.pairs.max_pairs_per_prompt * n},
            train={"steps": base.train.steps * n},
        ),
        "short_rounds": row(
            "DPO, twice the rounds of half the candidates and steps",
            rounds=2 * n,
            sampling={"candidates_per_prompt": base.sampling.candidates_per_prompt // 2},
            pairs={"max_pairs_per_prompt": base.pairs.max_pairs_per_prompt // 2},
            train={"steps": base.train.steps // 2},
        ),
        "constant_rate": row(
            "DPO, half the learning rate, constant within a round",
            train={"schedule": "constant", "learning_rate": base.train.learning_rate / 2},
        ),
        "one_use": row("DPO, every candidate in one pair at most", pairs={"max_uses": 1, "max_pairs_per_prompt": 5}),
        "pareto": row("DPO, first over last Pareto front (CaPO)", pairs={"rule": "pareto"}),
        "harmonic_fidelity": row(
            "DPO, lambda-harmonic reward, steered to fidelity: lambda 0.8", pairs={"fidelity_weight": 0.8}
        ),
        "harmonic_alignment": row(
            "DPO, lambda-harmonic reward, steered to alignment: lambda 0.2", pairs={"fidelity_weight": 0.2}
        ),
        "harmonic_far": row("DPO, lambda-harmonic reward, margin 1.5", pairs={"margin": 1.5}),
        "sum_far": row("DPO, weighted sum, margin 1.5", pairs={"rule": "weighted_sum", "margin": 1.5}),
        "sum_third": row(
            "DPO, weighted sum, fidelity's share 0.35", pairs={"rule": "weighted_sum", "fidelity_weight": 0.35}
        ),
        "ipo": objective("ipo", 500.0),
        "hinge": objective("hinge", 1000.0),
        "reward_gap": objective("reward_gap", 2000.0),
        "mapo": objective("mapo", 0.1),
        "kto": objective("kto", 2000.0),
        "loser_guard": row("DPO with the loser-gradient guard, mu 0.6 (Diffusion-SDPO)", train={"loser_guard": 0.6}),
        "bank_of_1": row(
            "DPO, one fixed draw of (t, noise) a pair, its reference computed once", train={"reference_bank": 1}
        ),
        "bank_of_4": row(
            "DPO, four fixed draws of (t, noise) a pair, their references computed once", train={"reference_bank": 4}
        ),
        "augmented": row("DPO, scores averaged over a flip and small shifts", "augmented"),
        "mean_of_two": row(
            "DPO, mean of two scorers on each axis (the second is the judge)", "mean of two", pairs={"combine": "mean"}
        ),
        "worst_of_two": row("DPO, worst of two scorers on each axis (the second is the judge)", "worst of two"),
    }


def image_forwards(settings: LoopSettings, prompts: int) -> int:
    """What a row spends: denoiser forwards of one image, a backward counted as two. Left out: evaluation, which all
    share, and what a reference bank saves.

    Candidates: sampler steps, twice with guidance. A training step: both pictures of each pair, reference forward,
    policy forward and backward. 24 prompts x 10 candidates x 12 steps and 60 steps of 8 pairs make 2,880 + 60 * 16 * 4
    = 6,720 a round.
    """
    drawing, train = settings.sampling, settings.train
    sampled = prompts * drawing.candidates_per_prompt * drawing.steps * (2 if drawing.guidance > 1 else 1)
    trained = train.steps * train.accumulation * 2 * train.batch_size * (1 + 1 + BACKWARD)
    return settings.rounds * (sampled + trained)


def dreambooth_steps(settings: LoopSettings, personalize: PersonalizeSettings, prompts: int) -> int:
    """Steps of further DreamBooth that cost as much as the loop."""
    return image_forwards(settings, prompts) // (personalize.batch_size * (1 + BACKWARD))
