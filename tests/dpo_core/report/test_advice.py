"""Tests what is said after a verdict: from the rounds' numbers, by hand."""

from __future__ import annotations

import pytest

from dreambooth_dpo.dpo_core.report.advice import Rounds, advice

SWEEP = " A strength sweep shows whether another strength is better."


def standing(number: int, low: float, broken: tuple[str, ...] = ()) -> dict:
    return {"round": number, "gain": {"mean": low + 0.1, "low": low, "high": low + 0.2}, "broken": list(broken)}


def decision(kept: int, best: int, stop: bool = False) -> dict:
    return {"kept": kept, "best": best, "stop": stop, "reason": "a reason"}


def test_rounds_are_read_from_decision_and_standings() -> None:
    watch = [standing(1, 0.2), standing(2, 0.4, ("the quality fell",))]
    assert Rounds.of(decision(1, 2, stop=True), watch) == Rounds(kept=1, last=2, stopped=True, broken=True)
    assert Rounds.of(decision(1, 1), watch) == Rounds(kept=1, last=2, stopped=False, broken=False)
    assert Rounds.of(None, watch) is None and Rounds.of(decision(0, 0), []) is None


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        # The last round has the highest lower bound, and nothing ended the run.
        (Rounds(2, 2, stopped=False, broken=False), " One more round may help: the gain still rose in the last round."),
        (Rounds(2, 2, stopped=True, broken=False), SWEEP),
        (Rounds(1, 3, stopped=False, broken=False), SWEEP),
        (None, SWEEP),
    ],
)
def test_another_round_is_advised_only_while_the_gain_rises(rounds: Rounds | None, said: str) -> None:
    assert advice("better", rounds=rounds) == "Use it at strength 1." + said


def test_a_strength_sweep_names_the_strength() -> None:
    assert advice("better", strength=0.75) == "Use it at strength 0.75."
    assert advice("better", strength=0).startswith("Do not use it: the strength sweep")


def test_a_kept_original_is_said_with_its_reason() -> None:
    """Whatever the scores of the model that was evaluated say: it is not the one that is kept."""
    none, broken = (Rounds(0, 2, stopped=True, broken=value) for value in (False, True))
    for status in ("original", "better", "none"):
        assert advice(status, rounds=none).startswith("Your original is kept: no round is shown to be better.")
        assert advice(status, rounds=broken).startswith("Your original is kept: the best round failed a guard.")


def test_a_failed_guard_comes_before_another_round() -> None:
    rising = Rounds(2, 2, stopped=False, broken=False)
    assert "masks" in advice("better", ["copy_paste"], rounds=rising)
    assert "raise diversity (0.5 is usual" in advice("better", ["diversity"], rounds=rising)
    assert "masks" in advice("better", ["diversity", "copy_paste"]), "copies are the graver fault"
    assert "raise beta" in advice("better", ["quality"], rounds=rising)
    assert "One more round" not in advice("better", ["copy_paste"], rounds=rising)


def test_an_unconfirmed_gain_keeps_what_sweep_and_guards_say() -> None:
    assert advice("unconfirmed", strength=0).startswith("Do not use it: the strength sweep")
    assert advice("unconfirmed", strength=0.5).endswith("The sweep's strength is 0.5.")
    said = advice("unconfirmed", ["saturation"])
    assert said.startswith("Look at its pictures before you use it") and "strong colours" in said


def test_a_trade_is_turned_back() -> None:
    assert advice("mixed", lower=True).startswith("Lower fidelity_weight")
    assert advice("mixed", lower=False).startswith("Raise fidelity_weight")
