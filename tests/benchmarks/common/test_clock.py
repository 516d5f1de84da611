"""The clock of the benchmarks."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from dreambooth_dpo.benchmarks.common.clock import Clock, median_seconds


def test_a_phase_inside_another_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch):
    """0..1 outside, 1..3 denoise of which 2..2.5 text: denoise 1.5, text 0.5."""
    clock, ticks = Clock("cpu", ("write",)), iter([1.0, 2.0, 2.5, 3.0])
    monkeypatch.setattr(clock, "now", lambda: next(ticks))
    with clock.phase("denoise"):
        clock.wrapped("text", lambda: None)()
    assert clock.seconds == {"write": 0.0, "denoise": 1.5, "text": 0.5}


def test_a_wait_does_not_count_for_one_thread():
    clock = Clock()
    clock.kind = "CPU seconds"
    begun = clock.now()
    time.sleep(0.2)
    assert clock.now() - begun < 0.15


def test_methods_are_timed_within_the_block_and_not_while_the_clock_is_off(monkeypatch: pytest.MonkeyPatch):
    @dataclass(frozen=True)
    class Run:
        def write(self) -> str:
            return "written"

    clock, run = Clock(phases=("write",)), Run()
    monkeypatch.setattr(clock, "now", iter([1.0, 3.0]).__next__)
    with clock.timing(run, {"write": "write"}):
        assert run.write() == "written"
        clock.on = False
        assert run.write() == "written"
    assert clock.seconds == {"write": 2.0} and not vars(run)


def test_a_median_of_several_calls():
    calls = []
    assert median_seconds(lambda: calls.append(1), 3) >= 0 and len(calls) == 3
