"""The training part of benchmarks/host, run small."""

from __future__ import annotations

import pytest

from dreambooth_dpo.benchmarks.host.stock_trainer import BANK, BATCH, OURS, SINGLE, training_cost

pytestmark = pytest.mark.usefixtures("as_nodes_run")


def test_both_nodes_train_on_as_many_pictures():
    """Counts of pictures in forwards of both training nodes.

    A pair is two pictures: 4 pass through policy and reference, 2 once a reference bank is filled. The stock node has
    2, one at a time, and 2 * 2 as a batch.
    """
    found = training_cost(1, 2, (2, 3), 1)
    sides = found["sides"]
    assert {n: s["through_denoiser_per_step"] for n, s in sides.items()} == {OURS: 4, BANK: 2, BATCH: 4, SINGLE: 2}
    assert {n: s["forwards_per_step"] for n, s in sides.items()} == {OURS: 8, BANK: 6, BATCH: 12, SINGLE: 6}
    assert found["pictures"] == 2 and found["seconds_are"] == "CPU seconds"
