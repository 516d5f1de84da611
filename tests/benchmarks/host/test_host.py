"""The arithmetic of the host benchmark; what needs a ComfyUI is in tests/host/test_training_cost.py."""

from __future__ import annotations

import sys

import pytest

from dreambooth_dpo.benchmarks.common.in_comfyui import measured
from dreambooth_dpo.benchmarks.host.__main__ import main
from dreambooth_dpo.benchmarks.host.stock_trainer import BANK, BATCH, OURS, SINGLE, figures, show, step_of


def test_a_step_is_what_a_longer_run_adds():
    """3 s of 2 steps and 7 s of 6: a step is 1 s, and 1 s is left; 4 pictures in them and 20: 4 a step."""
    assert step_of((3.0, 4), (7.0, 20), 2, 6) == (1.0, 4.0, 1.0)


def test_figures_by_hand(capsys):
    """Two pictures a step: ours 4 through the denoiser (policy and reference), with a bank 2, a batch of theirs 4, one
    at a time 2.

    Forwards' worth: ours 4 * 2 = 8 and 2 * 3 = 6, theirs 4 * 3 = 12 and 2 * 3 = 6. The second of the three turns has
    the median ratios.
    """
    timed = {
        OURS: [(8.0, 4, 0.5), (4.0, 4, 0.5), (2.0, 4, 0.5)],
        BANK: [(8.0, 2, 0.5), (3.0, 2, 0.5), (2.0, 2, 0.5)],
        BATCH: [(8.0, 4, 0.0), (12.0, 4, 0.0), (80.0, 4, 0.0)],
        SINGLE: [(1.0, 2, 0.0), (6.0, 2, 0.0), (80.0, 2, 0.0)],
    }
    found = figures(timed, 2)
    ours = found["sides"][OURS]
    names = ("seconds_per_step", "seconds_per_picture", "forwards_per_step", "seconds_per_forward")
    assert [ours[name] for name in names] == [4, 2, 8, 0.5]
    assert {n: s["forwards_per_step"] for n, s in found["sides"].items()} == {OURS: 8, BANK: 6, BATCH: 12, SINGLE: 6}
    assert [(r["theirs"], r["ours"], r["by_step"], r["by_forward"]) for r in found["ratios"]] == [
        (BATCH, OURS, 3.0, pytest.approx(3 * 8 / 12)),
        (BATCH, BANK, 4.0, pytest.approx(4 * 6 / 12)),
        (SINGLE, OURS, 1.5, pytest.approx(1.5 * 8 / 6)),
        (SINGLE, BANK, 2.0, pytest.approx(2.0)),
    ]
    show({"pictures": 2, "rank": 8, "seconds_are": "CPU seconds", **found})
    assert f"{BATCH} to {OURS}: 3.00 by step, 2.00 by forward" in capsys.readouterr().out


def test_an_unknown_part_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["host", "--parts", "start,speed"])
    with pytest.raises(SystemExit):
        main()
    assert "no part 'speed'; parts are start, sampling, training" in capsys.readouterr().err


def test_no_comfyui_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=f"no ComfyUI in {tmp_path}: set COMFYUI_PATH"):
        measured("host.pack_start.start_seconds")
