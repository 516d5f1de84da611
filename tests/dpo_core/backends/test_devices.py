"""Devices: every name gives a device that works, or one sentence."""

from __future__ import annotations

import pytest
import torch

from dreambooth_dpo.dpo_core.backends.diffusers.devices import pick_device
from dreambooth_dpo.dpo_core.errors import UserError


@pytest.mark.parametrize("name", ["cpu", "cpu:0", "auto"])
def test_a_device_that_works_is_taken(name):
    found = pick_device(name)
    assert found == name or name == "auto"
    assert torch.zeros(1, device=found).device.type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(
    "name",
    [
        "cpu:3", "meta", "cuda:99", "mps:1", "hpu", "xpu:77", "privateuseone", "vulkan", "xla", "mkldnn", "opengl",
        "fpga", "lazy", "maia", "mtia", "gpu", "gpu0", "", "cuda:-1", "cuda:x", "0", "CPU", "cpu cuda",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_any_other_name_is_refused_in_one_sentence(name):
    with pytest.raises(UserError, match=rf"^device {name!r} .*Use ") as caught:
        pick_device(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_device_that_fails_when_used_is_refused(monkeypatch):
    """A stand-in for a GPU whose driver does not fit: torch sees it, and any use fails."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "full", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no kernel image")))
    with pytest.raises(UserError, match=r"device 'cuda:0' cannot be used on this machine \(no kernel image\)"):
        pick_device("cuda:0")
