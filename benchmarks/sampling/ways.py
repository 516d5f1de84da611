"""Ways to draw fewer candidates, as selections from candidates that were all drawn in full (records.py)."""

from __future__ import annotations

import numpy as np

from ...dpo_core.pairs.choose import angle_degrees
from ...dpo_core.pairs.rules import PAIR_RULES, reward_of
from ...dpo_core.settings import PairSettings
from ...dpo_core.statistics import standardise
from ..common.concepts import members
from .records import PER_PROMPT, Records, first_of

RULES = ("lambda_harmonic", "weighted_sum", "angle_window")
"""Pair rules by which a candidate's prospects can be computed from its predicted scores."""


# --- stopping part-way ---


def prospect_by_reward(reward: np.ndarray) -> np.ndarray:
    """Mean gap of each candidate's reward to all rewards of its prompt, its own included, float [k]: a measure of how
    long its pairs can be expected to be.

    The highest and the lowest can win or lose a long pair; those in the middle have short gaps. Of 0, 4, 6 and 10 the
    sums of gaps are 20, 12, 12 and 20: means 5, 3, 3 and 5.
    """
    return np.abs(reward[:, None] - reward).mean(axis=0)


def prospect_in_window(
    fidelity: np.ndarray, alignment: np.ndarray, window: tuple[float, float] = (20.0, 70.0)
) -> np.ndarray:
    """The same, float [k], for a window of angles (degrees). fidelity, alignment: float [k], in standard deviations.

    An improvement reaches into the window by its length along the window's nearest direction, 0 beyond a right angle.
    A candidate's prospect is its mean reach over all partners, as winner or as loser, whichever is larger.
    """
    d_fidelity, d_alignment = fidelity[:, None] - fidelity, alignment[:, None] - alignment
    angle = angle_degrees(d_alignment, d_fidelity)
    beside = np.radians(np.clip(np.maximum(window[0] - angle, angle - window[1]), 0, 90))
    reach = np.hypot(d_fidelity, d_alignment) * np.cos(beside)
    return np.maximum(reach.mean(axis=0), reach.mean(axis=1))


def prospects(prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings) -> np.ndarray:
    """Each candidate's prospect by the settings' rule, float [n], from raw scores, float [n].

    Raises SystemExit for a rule without a prospect.
    """
    f, a = (standardise(values, prompt_of) for values in (fidelity, alignment))
    if settings.rule not in RULES:
        raise SystemExit(f"the rule {settings.rule} has no prospects by which to stop; {', '.join(RULES)} have.")
    reward, found = reward_of(prompt_of, fidelity, alignment, settings), np.zeros(len(f))
    for prompt in np.unique(prompt_of):
        one = prompt_of == prompt
        window = (settings.angle_low, settings.angle_high)
        found[one] = prospect_in_window(f[one], a[one], window) if reward is None else prospect_by_reward(reward[one])
    return found


def least(prospect: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` candidates with the least prospects, int [count], rising; of equals the first ones."""
    return np.sort(np.argsort(prospect, kind="stable")[:count])


def stopped(
    records: Records, per_prompt: int, step: int, settings: PairSettings, by_chance: bool = False
) -> np.ndarray:
    """Candidates drawn to the end, bool [n]: of the first `per_prompt` of each prompt half, rounded down, is stopped
    after `step` steps.
    """
    goes_on, prompt_of = first_of(records, per_prompt), records["prompt"]
    begun, prospect = np.nonzero(goes_on)[0], np.zeros(len(prompt_of))
    scores = (records[f"{axis}_{step}"][begun] for axis in ("fidelity", "alignment"))
    prospect[begun] = prospects(prompt_of[begun], *scores, settings)
    for prompt in np.unique(prompt_of):
        own = begun[prompt_of[begun] == prompt]
        count = len(own) // 2
        if by_chance:
            dropped = np.random.default_rng((step, int(prompt))).permutation(len(own))[:count]
        else:
            dropped = least(prospect[own], count)
        goes_on[own[dropped]] = False
    return goes_on


# --- drafting first ---


def drafted(records: Records, per_prompt: int, steps: int, settings: PairSettings) -> np.ndarray:
    """Candidates drawn in full, bool [n]: of the first `per_prompt` of each prompt those in pairs of drafts of `steps`
    steps.
    """
    begun = np.nonzero(first_of(records, per_prompt))[0]
    scores = (records[f"{axis}_draft_{steps}"][begun] for axis in ("fidelity", "alignment"))
    pairs, _ = PAIR_RULES[settings.rule](records["prompt"][begun], *scores, settings)
    found = np.zeros(len(records["prompt"]), bool)
    for side in members(pairs):
        found[begun[side]] = True
    return found


# --- drawing no more ---


def until(records: Records, wave: int, enough: int, settings: PairSettings, most: int = PER_PROMPT) -> np.ndarray:
    """Drawn candidates, bool [n]: one wave for each prompt, then further waves for prompts with fewer than `enough`
    pairs of what is drawn so far.

    wave: candidates of a prompt at a time. most: of a prompt in all.
    """
    prompt_of = records["prompt"]
    drawn = first_of(records, min(wave, most))
    for upto in range(2 * wave, most + wave, wave):
        pairs, _ = PAIR_RULES[settings.rule](
            *(records[name][drawn] for name in ("prompt", "fidelity", "alignment")), settings
        )
        found = np.bincount(prompt_of[drawn][members(pairs)[0]], minlength=int(prompt_of.max()) + 1)
        # A prompt that once had enough is done, even if the spread of a later wave puts one of its pairs below the
        # margin.
        lacking = (found < enough) & (np.bincount(prompt_of[drawn]) >= upto - wave)
        drawn |= first_of(records, min(upto, most)) & lacking[prompt_of]
    return drawn
