"""Seconds that a model's fingerprint takes: every byte of its weights is read.

    python -m dreambooth_dpo.benchmarks.hashing --gigabytes 2 --out runs/benchmark_hashing.json

Beside it, as the peer on the same machine and bytes: sha256 of the standard library, and reading the bytes once (a sum
of floats).
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..dpo_core.hashing import update_with_tensor
from ..dpo_core.run.files import write_json

LAYER = 4096


def layers(gigabytes: float) -> list[torch.Tensor]:
    """bfloat16 weights [4096, 4096] of so many gigabytes in all, 32 MiB each."""
    draws = torch.Generator().manual_seed(0)
    count = max(1, round(gigabytes * 1e9 / (2 * LAYER**2)))
    one = torch.randn(LAYER, LAYER, generator=draws).bfloat16()
    return [one + i for i in range(count)]


def measure(gigabytes: float, repeats: int) -> dict[str, Any]:
    """Median seconds of each side, and seconds for 12 GB at that rate."""
    weights = layers(gigabytes)
    size = sum(w.nbytes for w in weights) / 1e9

    def ours() -> None:
        digest = hashlib.sha256()
        for weight in weights:
            update_with_tensor(digest, weight)

    def sha256() -> None:
        digest = hashlib.sha256()
        for weight in weights:
            digest.update(weight.view(torch.uint8).numpy())

    def read() -> None:
        for weight in weights:
            weight.sum().item()

    sides: dict[str, Callable[[], None]] = {"fingerprint": ours, "sha256": sha256, "one sum": read}
    found = {name: statistics.median(_seconds(side) for _ in range(repeats)) for name, side in sides.items()}
    return {
        "gigabytes": size,
        "seconds": found,
        "seconds_for_12_gb": {name: 12 / size * seconds for name, seconds in found.items()},
        "sha256_to_fingerprint": found["sha256"] / found["fingerprint"],
        "threads": torch.get_num_threads(),
    }


def _seconds(side: Callable[[], None]) -> float:
    begun = time.perf_counter()
    side()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    found = measure(arguments.gigabytes, arguments.repeats)
    for name, seconds in found["seconds"].items():
        print(
            f"{name}: {seconds:.2f} s for {found['gigabytes']:.1f} GB, {found['seconds_for_12_gb'][name]:.1f} s for 12 GB"
        )
    print(
        f"sha256 takes {found['sha256_to_fingerprint']:.1f} times as long as the fingerprint ({found['threads']} threads)"
    )
    if arguments.out:
        write_json(arguments.out, found)


if __name__ == "__main__":
    main()
