"""Tests the measurement of a process's peak memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dreambooth_dpo.dpo_core.peak import peak_bytes, reset_peak


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux lets a process begin its peak anew")
def test_peak_is_reset_and_includes_freed_memory() -> None:
    cpu = torch.device("cpu")
    reset_peak(cpu)
    before = peak_bytes(cpu)
    torch.ones(50_000_000).sum()  # 200 MB, given back at once
    held = peak_bytes(cpu)
    assert held - before > 150e6
    reset_peak(cpu)
    assert held - peak_bytes(cpu) > 150e6
