"""Settings of rows that draw candidates for less, and of rows that use those of rounds before again."""

from __future__ import annotations

from ...dpo_core.settings import LoopSettings
from ..common.concepts import changed

AGAIN = ("third", "third_again_1", "third_again_2", "half_again_1", "again_1", "again_2")
"""Rows that use candidates again, in as many rounds: run by name, and not among "all"."""
STEPS = {4: 63, 5: 48, 6: 37, 8: 24}
"""Training steps of a round, by the number of rounds, so that they spend no more than 3 rounds do."""
MORE_ROUNDS = tuple(f"rounds_{n}_again_{k}" for n in STEPS for k in (1, 2))
"""Rows of more rounds for the same forwards, as their candidates are used again: run by name, and not among "all"."""
DISTILLED_STEPS = 2
"""Sampler steps that the toybox's LoRA for few steps was made for."""
DISTILLED = ("few_2", "distilled_2", "distilled_2_again_1", "few_2_wide", "distilled_2_wide", "distilled_2_rounds_4")
"""Rows of candidates in two sampler steps, without and with the LoRA for few steps: run by name alone."""

Described = tuple[str, LoopSettings]
"""What a row is, and its settings."""


def again(base: LoopSettings) -> dict[str, Described]:
    """AGAIN: a share of the fresh candidates, and all of some rounds before."""
    whole, made = base.sampling.candidates_per_prompt, {}
    for name, part in (("third", 3), ("half", 2), ("", 1)):
        for rounds in range(3):
            drawn = {"candidates_per_prompt": whole // part, "earlier_rounds": rounds}
            about = f"DPO, {whole // part} fresh candidates" + f", and those of {rounds} rounds before" * (rounds > 0)
            title = "_".join(filter(None, (name, f"again_{rounds}" if rounds else "")))
            made[title] = about, changed(base, sampling=drawn)
    return {name: made[name] for name in AGAIN}


def more_rounds(base: LoopSettings) -> dict[str, Described]:
    """MORE_ROUNDS: a third of the fresh candidates in each round, and all of one or two rounds before.

    At most the default's compute, 3 * 6,720 = 20,160 forwards: 4 rounds of 24 * 10 * 4 + 63 * 16 * 4 = 4,992 are
    19,968, 5 of 4,032 are 20,160, 6 of 3,328 are 19,968 and 8 of 2,496 are 19,968. The held-out pictures of each round
    are not in it.
    """
    third, made = base.sampling.candidates_per_prompt // 3, {}
    for name in MORE_ROUNDS:
        rounds, before = (int(part) for part in name.split("_")[1::2])
        made[name] = (
            f"DPO, {rounds} rounds of {STEPS[rounds]} steps, {third} fresh candidates and those of {before} rounds "
            "before",
            changed(
                base,
                rounds,
                sampling={"candidates_per_prompt": third, "earlier_rounds": before},
                train={"steps": STEPS[rounds]},
            ),
        )
    return made


def distilled(base: LoopSettings) -> dict[str, Described]:
    """DISTILLED: two thirds of the candidates in half the sampler steps, a third of the forwards; wide: twice as many
    candidates, for equal forwards; or a fourth round for what is saved (24 * 20 * 2 + 63 * 16 * 4 = 4,992 a round).
    """
    whole, made = base.sampling.candidates_per_prompt, {}
    for name in DISTILLED[:-1]:
        count = 2 * whole if name.endswith("wide") else whole * 2 // 3
        drawn = {"candidates_per_prompt": count, "candidate_steps": DISTILLED_STEPS}
        again = {"earlier_rounds": 1} if "again" in name else {}
        about = f"DPO, {count} candidates in {DISTILLED_STEPS} sampler steps" + ", with the LoRA for few steps" * (
            name.startswith("distilled")
        )
        made[name] = about + ", and those of the round before" * bool(again), changed(base, sampling=drawn | again)
    rounds = 4
    third = {"candidates_per_prompt": whole * 2 // 3, "candidate_steps": DISTILLED_STEPS}
    made["distilled_2_rounds_4"] = (
        f"DPO, {rounds} rounds of {STEPS[rounds]} steps, {whole * 2 // 3} candidates in {DISTILLED_STEPS} steps, "
        "with the LoRA for few steps",
        changed(base, rounds, sampling=third, train={"steps": STEPS[rounds]}),
    )
    return made


def cheap_rounds(base: LoopSettings, rounds: int, rate: float, parts: int = 2) -> Described:
    """Many rounds of 1 / parts of the steps on half the candidates, which are drawn in a third of the sampler steps.

    At most the default's compute: 8 rounds of 24 * 5 * 4 + 30 * 16 * 4 = 2,400 forwards are 19,200, and 14 rounds of
    480 + 15 * 16 * 4 = 1,440 are 20,160, as 3 of 6,720 are. The held-out pictures of each round are not in it.
    """
    drawn = {"candidates_per_prompt": base.sampling.candidates_per_prompt // 2, "candidate_steps": 4}
    train = {"steps": base.train.steps // parts, "learning_rate": rate}
    return (
        f"DPO, {rounds} rounds of 1/{parts} of the steps, half the candidates in 4 sampler steps, learning rate "
        f"{rate:g}",
        changed(base, rounds, sampling=drawn, train=train),
    )
