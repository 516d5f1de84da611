"""Kills of a ComfyUI server in the middle of DPO Rounds: the graph, queued again, ends with the same numbers."""

from __future__ import annotations

import pytest
from hosting import comfyui_path

from dreambooth_dpo.benchmarks.crash.server import graph, kill_series


def test_the_graph_names_each_run(comfyui) -> None:
    assert graph("a")["rounds"]["inputs"]["run_name"] == "a"
    assert {node["class_type"] for node in graph("a").values()} >= {"DBDPO_Rounds", "DBDPO_SaveLora"}


@pytest.mark.slow  # starts a server five times
def test_two_kills_change_nothing(comfyui, tmp_path) -> None:
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    found = kill_series(tmp_path, kills=2, seed=3, most=2)
    assert found["kills"] == 2 and not found["wrong"]
