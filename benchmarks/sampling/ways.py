"""Ways of sparing candidates, as choices among toybox candidates that were drawn in full: whom to stop, and when to
draw no more.
"""

from __future__ import annotations

import numpy as np

from ...dpo_core.pairs.choose import angle_degrees
from ...dpo_core.pairs.rules import PAIR_RULES, reward_of
from ...dpo_core.settings import PairSettings
from ...dpo_core.statistics import standardise

PER_PROMPT = 20
"""Candidates of each prompt in the records."""
RULES = ("lambda_harmonic", "weighted_sum", "angle_window")
"""Pair rules that tell a candidate's prospects from its predicted scores."""

Records = dict[str, np.ndarray]
"""Of one concept, by candidate: prompt, right, fidelity, alignment; fidelity_<step> and alignment_<step> of the
predicted x0 after so many steps; fidelity_draft_<steps> and alignment_draft_<steps> of a draft in so many."""


def first_of(records: Records, per_prompt: int) -> np.ndarray:
    """The first so many candidates of each prompt, bool [n]."""
    return np.arange(len(records["prompt"])) % PER_PROMPT < per_prompt


# --- stopping part-way ---


def hope_of_reward(reward: np.ndarray) -> np.ndarray:
    """How long a candidate's pairs can be expected to be, where a reward decides: its mean gap to its prompt's other
    rewards, float [k].

    Either end may win or lose a long pair; the middling ones are near to all. Of 0, 4, 6 and 10 the sums are 20, 12, 12
    and 20: means over four (oneself among them) 5, 3, 3 and 5.
    """
    return np.abs(reward[:, None] - reward).mean(axis=0)


def hope_in_window(
    fidelity: np.ndarray, alignment: np.ndarray, window: tuple[float, float] = (20.0, 70.0)
) -> np.ndarray:
    """The same, float [k], where a window of angles (degrees) decides. fidelity, alignment: float [k], in standard
    deviations.

    How far an improvement reaches into the window is its length in the window's nearest direction, 0 beyond a right
    angle. A candidate's hope is the mean of that over its partners, as winner or as loser, whichever is more.
    """
    d_fidelity, d_alignment = fidelity[:, None] - fidelity, alignment[:, None] - alignment
    angle = angle_degrees(d_alignment, d_fidelity)
    beside = np.radians(np.clip(np.maximum(window[0] - angle, angle - window[1]), 0, 90))
    reach = np.hypot(d_fidelity, d_alignment) * np.cos(beside)
    return np.maximum(reach.mean(axis=0), reach.mean(axis=1))


def hopes(prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings) -> np.ndarray:
    """The hope of each candidate by the settings' rule, float [n], from raw scores, float [n].

    Raises SystemExit for a rule without one.
    """
    f, a = (standardise(values, prompt_of) for values in (fidelity, alignment))
    if settings.rule not in RULES:
        raise SystemExit(f"the rule {settings.rule} does not tell whom to stop; {', '.join(RULES)} do.")
    reward, found = reward_of(prompt_of, fidelity, alignment, settings), np.zeros(len(f))
    for prompt in np.unique(prompt_of):
        one = prompt_of == prompt
        window = (settings.angle_low, settings.angle_high)
        found[one] = hope_in_window(f[one], a[one], window) if reward is None else hope_of_reward(reward[one])
    return found


def least(hope: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` candidates that can hardly stand in a pair: int [count], rising.

    Of equal ones the first go.
    """
    return np.sort(np.argsort(hope, kind="stable")[:count])


def stopped(
    records: Records, per_prompt: int, step: int, settings: PairSettings, by_chance: bool = False
) -> np.ndarray:
    """Which candidates go on, bool [n]: of the first `per_prompt` of each prompt, half (rounded down) is stopped after
    `step` steps.
    """
    goes_on, prompt_of = first_of(records, per_prompt), records["prompt"]
    begun, hope = np.nonzero(goes_on)[0], np.zeros(len(prompt_of))
    hope[begun] = hopes(
        prompt_of[begun], *(records[f"{axis}_{step}"][begun] for axis in ("fidelity", "alignment")), settings
    )
    for prompt in np.unique(prompt_of):
        members = begun[prompt_of[begun] == prompt]
        count = len(members) // 2
        if by_chance:
            dropped = np.random.default_rng((step, int(prompt))).permutation(len(members))[:count]
        else:
            dropped = least(hope[members], count)
        goes_on[members[dropped]] = False
    return goes_on


# --- drafting first ---


def drafted(records: Records, per_prompt: int, steps: int, settings: PairSettings) -> np.ndarray:
    """Which candidates are drawn in full, bool [n]: of the first `per_prompt` of each prompt those in pairs of drafts
    in `steps` steps.
    """
    begun = np.nonzero(first_of(records, per_prompt))[0]
    scores = (records[f"{axis}_draft_{steps}"][begun] for axis in ("fidelity", "alignment"))
    pairs, _ = PAIR_RULES[settings.rule](records["prompt"][begun], *scores, settings)
    found = np.zeros(len(records["prompt"]), bool)
    found[begun[[i for pair in pairs for i in (pair.winner, pair.loser)]]] = True
    return found


# --- drawing no more ---


def until(records: Records, wave: int, enough: int, settings: PairSettings, most: int = PER_PROMPT) -> np.ndarray:
    """Which candidates are drawn, bool [n]: a wave of each prompt, then further ones for prompts with fewer than
    `enough` pairs.

    `wave`: candidates of a prompt at a time; `most`: of a prompt in all. Pairs are those that the settings' rule and
    margin make of all that is drawn so far.
    """
    prompt_of = records["prompt"]
    drawn = first_of(records, min(wave, most))
    for upto in range(2 * wave, most + wave, wave):
        pairs, _ = PAIR_RULES[settings.rule](
            *(records[name][drawn] for name in ("prompt", "fidelity", "alignment")), settings
        )
        found = np.bincount(prompt_of[drawn][[p.winner for p in pairs]], minlength=int(prompt_of.max()) + 1)
        # A prompt that had enough is over, also where a later wave's spread takes one of its pairs below the margin.
        lacking = (found < enough) & (np.bincount(prompt_of[drawn]) >= upto - wave)
        drawn |= first_of(records, min(upto, most)) & lacking[prompt_of]
    return drawn
