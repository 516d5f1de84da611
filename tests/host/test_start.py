"""The pack when ComfyUI starts: silent on a supported version, one clear line on an unsupported one."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest
from event_loop import in_a_loop
from hosting import Server, comfyui_path

pytestmark = pytest.mark.usefixtures("comfyui")
AGE = "DreamBooth DPO needs ComfyUI 0.3.64 or newer, and this is 0.3.50: update ComfyUI."


@pytest.fixture
def old(pack, monkeypatch):
    """The pack as it would see an older host."""
    check = sys.modules[f"{pack.__name__}.dpo_core.backends.comfyui.host_check"]
    monkeypatch.setattr(check, "version", lambda: "0.3.50")
    monkeypatch.setattr(check, "_checked", False)
    return pack


def test_a_supported_host_prints_no_message(tmp_path):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path) as server:
        told = [line for line in server.said().splitlines() if "dreambooth" in line.lower()]
        assert len(server.get("/object_info/DBDPO_TrainStep")) == 1
    said = [line for line in told if "custom_nodes/dreambooth_dpo" not in line and str(tmp_path) not in line]
    assert said == [] and not any("FAILED" in line for line in told)


def test_a_supported_host_logs_no_refusal(pack, nodes, caplog):
    with caplog.at_level(logging.DEBUG):
        in_a_loop(pack.comfy_entrypoint())
    assert not [record for record in caplog.records if "DreamBooth" in record.getMessage()]


def test_an_older_host_is_named_in_one_line_of_the_log(old, nodes, caplog):
    with caplog.at_level(logging.INFO):
        in_a_loop(old.comfy_entrypoint())
    assert [record.getMessage() for record in caplog.records if "DreamBooth" in record.getMessage()] == [AGE]


def test_an_older_host_is_named_by_the_nodes_too(old, nodes, monkeypatch):
    monkeypatch.setattr(nodes["DBDPO_LoadToybox"], "hidden", SimpleNamespace(unique_id="1"))
    errors = sys.modules[f"{old.__name__}.dpo_core.errors"]
    with pytest.raises(errors.UserError, match=AGE):
        nodes["DBDPO_LoadToybox"].EXECUTE_NORMALIZED(concept=0, personalized=False, steps=1)
