"""The benchmark of fingerprints: it measures what it names."""

from __future__ import annotations

from dreambooth_dpo.benchmarks.hashing import layers, measure


def test_seconds_are_those_of_the_bytes_that_were_made():
    assert sum(w.nbytes for w in layers(0.1)) / 1e9 == measure(0.1, 1)["gigabytes"]
    found = measure(0.04, 1)
    assert set(found["seconds"]) == {"fingerprint", "sha256", "one sum"} and min(found["seconds"].values()) > 0
    assert found["seconds_for_12_gb"]["sha256"] > 100 * found["seconds"]["sha256"]
