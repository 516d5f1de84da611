"""One reward for each candidate from its two scores, by the pair rule: for objectives that train on all candidates."""

from __future__ import annotations

import numpy as np

from ..settings import PairSettings
from ..statistics import standardise
from .rules import Window, auto_window, pareto_fronts, reward_of


def candidate_rewards(
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    settings: PairSettings,
    layout: np.ndarray | None = None,
) -> np.ndarray:
    """Rewards above the prompt's mean, in standard deviations of the round, float64 [n]: the advantage of a candidate.

    Group mean and global deviation, as Flow-GRPO and DiffusionNFT (arXiv 2509.16117) with `global_std`; the deviation
    is from the prompts' means. lambda_harmonic and weighted_sum: their reward (`reward_of`), with `diversity` what a
    candidate adds to the variety by its `layout`. angle_window: the length along the window's centre,
    cos(c) fidelity + sin(c) alignment, both in standard deviations. pareto: the negated front. random: normal draws
    from (settings.seed, number of candidates), the control. Takes raw scores. Raises UserError as the rules do.
    """
    if (known := reward_of(prompt_of, fidelity, alignment, settings, layout)) is not None:
        return known
    if settings.rule == "random":
        draws = np.random.default_rng((settings.seed, len(prompt_of), 1)).standard_normal(len(prompt_of))
        return standardise(draws, prompt_of)
    if settings.rule == "pareto":
        fronts = np.zeros(len(prompt_of))
        for prompt in np.unique(prompt_of):
            of = prompt_of == prompt
            fronts[of] = pareto_fronts(np.asarray(fidelity)[of], np.asarray(alignment)[of])
        return standardise(-fronts, prompt_of)
    centre = np.radians(sum(_window(prompt_of, fidelity, alignment, settings)) / 2)
    along = np.cos(centre) * standardise(fidelity, prompt_of) + np.sin(centre) * standardise(alignment, prompt_of)
    return standardise(along, prompt_of)


def _window(prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings) -> Window:
    if settings.window == "auto":
        return auto_window(prompt_of, fidelity, alignment, settings)
    return settings.angle_low, settings.angle_high
