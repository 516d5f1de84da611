"""How many pictures go at once: the count by hand, and the figures of a CUDA device."""

from __future__ import annotations

import pytest
import torch

from dreambooth_dpo.dpo_core.sampling.free_memory import CudaMeter, fitting, meter_for

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "each", "most", "count"),
    [
        # Four fifths of what is free: 8 of 10.
        (10, 2, 16, 4),
        (10, 2.7, 16, 2),
        (10, 8, 16, 1),
        (20 * GIB, GIB, 16, 16),
        (19 * GIB, GIB, 16, 15),
        (100 * GIB, GIB, 16, 16),
        (100 * GIB, GIB, 5, 5),
        # One is always tried: that it does not fit is for the drawing to say.
        (10, 9, 16, 1),
        (0, 2, 16, 1),
        (-5, 2, 16, 1),
        # Nothing was taken: nothing stands against the whole batch.
        (10, 0, 16, 16),
        (0, 0, 16, 16),
    ],
)
def test_the_count_by_hand(free, each, most, count):
    assert fitting(free, each, most) == count


class Device:
    """The figures that PyTorch tells of a device. Allocated: in use now; peak: at most since it was last reset."""

    allocated, peak, reserved, driver = 3 * GIB, 9 * GIB, 5 * GIB, 11 * GIB

    def put_into(self, monkeypatch: pytest.MonkeyPatch) -> Device:
        for name, told in {
            "memory_allocated": lambda _: self.allocated,
            "max_memory_allocated": lambda _: self.peak,
            "memory_reserved": lambda _: self.reserved,
            "mem_get_info": lambda _: (self.driver, 24 * GIB),
            "reset_peak_memory_stats": lambda _: setattr(self, "peak", self.allocated),
        }.items():
            monkeypatch.setattr(torch.cuda, name, told)
        return self


def test_a_device_is_asked_for_the_peak_since_the_start(monkeypatch):
    """An earlier, higher peak does not count, nor what lay there before."""
    device, meter = Device().put_into(monkeypatch), CudaMeter(torch.device("cuda"))
    meter.start()
    assert meter.taken() == 0
    device.peak = 4.5 * GIB
    assert meter.taken() == 1.5 * GIB


def test_what_is_free_counts_what_the_allocator_holds_unused(monkeypatch):
    """11 of the driver, and 2 of the 5 that are reserved."""
    Device().put_into(monkeypatch)
    assert CudaMeter(torch.device("cuda")).free() == 13 * GIB


def test_only_a_cuda_device_has_a_meter():
    assert isinstance(meter_for(torch.device("cuda", 1)), CudaMeter)
    assert meter_for(torch.device("cpu")) is None and meter_for(torch.device("mps")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_device_tells_what_a_tensor_takes():
    meter = meter_for(torch.device("cuda"))
    torch.empty(1, device="cuda")
    free = meter.free()
    meter.start()
    kept = torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
    assert meter.taken() == 64 * 2**20 and free - meter.free() == pytest.approx(64 * 2**20, abs=4 * 2**20)
    del kept
    assert meter.taken() == 64 * 2**20 and meter.free() == pytest.approx(free, abs=4 * 2**20)
