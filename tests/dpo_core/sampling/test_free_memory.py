"""Number of pictures sampled at once: the count by hand, and the meter of a CUDA device."""

from __future__ import annotations

import pytest
import torch

from dreambooth_dpo.dpo_core.sampling.free_memory import CudaMeter, meter_for, pictures_that_fit

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "each", "most", "count"),
    [
        # 80 % of the free memory: 8 of 10.
        (10, 2, 16, 4),
        (10, 2.7, 16, 2),
        (10, 8, 16, 1),
        (20 * GIB, GIB, 16, 16),
        (19 * GIB, GIB, 16, 15),
        (100 * GIB, GIB, 16, 16),
        (100 * GIB, GIB, 5, 5),
        # At least 1: sampling reports it if even that does not fit.
        (10, 9, 16, 1),
        (0, 2, 16, 1),
        (-5, 2, 16, 1),
        # No memory was taken: the whole batch.
        (10, 0, 16, 16),
        (0, 0, 16, 16),
    ],
)
def test_the_count_by_hand(free, each, most, count):
    assert pictures_that_fit(free, each, most) == count


class Device:
    """PyTorch's memory statistics of a device. Allocated: in use now; peak: maximum since the last reset."""

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


def test_taken_is_the_peak_since_the_start(monkeypatch):
    """An earlier, higher peak does not count, nor memory that was allocated before."""
    device, meter = Device().put_into(monkeypatch), CudaMeter(torch.device("cuda"))
    meter.start()
    assert meter.taken() == 0
    device.peak = 4.5 * GIB
    assert meter.taken() == 1.5 * GIB


def test_free_includes_reserved_but_unused_memory(monkeypatch):
    """11 free in the driver, and 2 unused of the 5 reserved."""
    Device().put_into(monkeypatch)
    assert CudaMeter(torch.device("cuda")).free() == 13 * GIB


def test_only_a_cuda_device_has_a_meter():
    assert isinstance(meter_for(torch.device("cuda", 1)), CudaMeter)
    assert meter_for(torch.device("cpu")) is None and meter_for(torch.device("mps")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_device_measures_a_tensor():
    meter = meter_for(torch.device("cuda"))
    torch.empty(1, device="cuda")
    free = meter.free()
    meter.start()
    kept = torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
    assert meter.taken() == 64 * 2**20 and free - meter.free() == pytest.approx(64 * 2**20, abs=4 * 2**20)
    del kept
    assert meter.taken() == 64 * 2**20 and meter.free() == pytest.approx(free, abs=4 * 2**20)
