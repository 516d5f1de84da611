"""Seconds of a model's fingerprint, which reads every byte of the weights.

    python -m dreambooth_dpo.benchmarks.hashing --gigabytes 2 --out runs/benchmark_hashing.json

The peers, on the same machine and bytes: sha256 of the standard library, and one sum over the floats. Seconds are those
of common/clock.py.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from ..dpo_core.hashing import update_with_tensor
from .common.clock import median_seconds
from .common.command import command_parser, write_result

LAYER = 4096


def layers(gigabytes: float) -> list[torch.Tensor]:
    """bfloat16 weights [4096, 4096], 32 MiB each, of `gigabytes` in all."""
    draws = torch.Generator().manual_seed(0)
    count = max(1, round(gigabytes * 1e9 / (2 * LAYER**2)))
    one = torch.randn(LAYER, LAYER, generator=draws).bfloat16()
    return [one + i for i in range(count)]


def measure(gigabytes: float, repeats: int) -> dict[str, Any]:
    """Median seconds of each side, and seconds for 12 GB at the same rate."""
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

    sides = {"fingerprint": ours, "sha256": sha256, "one sum": read}
    found = {name: median_seconds(side, repeats) for name, side in sides.items()}
    return {
        "gigabytes": size,
        "seconds": found,
        "seconds_for_12_gb": {name: 12 / size * seconds for name, seconds in found.items()},
        "sha256_to_fingerprint": found["sha256"] / found["fingerprint"],
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = command_parser(__doc__, "benchmark_hashing.json")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3, help="the median counts")
    args = parser.parse_args()
    found = measure(args.gigabytes, args.repeats)
    for name, seconds in found["seconds"].items():
        of_12 = found["seconds_for_12_gb"][name]
        print(f"{name}: {seconds:.2f} s for {found['gigabytes']:.1f} GB, {of_12:.1f} s for 12 GB")
    ratio = found["sha256_to_fingerprint"]
    print(f"sha256 takes {ratio:.1f} times as long as the fingerprint ({found['threads']} threads)")
    write_result(args.out, found)


if __name__ == "__main__":
    main()
