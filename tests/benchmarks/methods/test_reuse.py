"""Candidates of the round before beside fresh ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from loops import changed, make_loop

from dreambooth_dpo.benchmarks.common.concepts import EARLIER
from dreambooth_dpo.benchmarks.methods.reuse import ReusingLoop, nearest
from dreambooth_dpo.benchmarks.methods.rows import row_forwards, rows
from dreambooth_dpo.dpo_core.records import Candidate


def test_the_nearest_of_each_prompt_in_their_order():
    members = [Candidate(i, i // 3, "p", i, 0, i) for i in range(6)]
    assert [c.position for c in nearest(members, np.array([3.0, 1, 2, 0, 0, 5]), 2)] == [1, 2, 3, 4]


def test_spending_by_hand():
    """5 of 10 candidates: 1,440 in place of 2,880 a round; 2 rounds choose by 24 * 5 * 2 draws * 2 adapters = 480."""
    table = rows(EARLIER)
    assert row_forwards(table["reuse_5"], 24) == 3 * (1440 + 3840)
    assert row_forwards(table["reuse_3"], 24) == 3 * (1440 + 3840) + 2 * 480


def test_a_round_has_fresh_candidates_and_some_of_the_last_round_which_resume_finds_again(tmp_path: Path):
    settings = changed(rounds=3)
    plain = make_loop(tmp_path, settings=settings)
    loop = ReusingLoop(**vars(plain), kept=1)
    each, prompts = settings.sampling.candidates_per_prompt, len(loop.prompts.train)
    for number in range(3):
        loop.improve(number)
    for number in (1, 2):
        drawn = loop.run.candidates(f"round_{number}")
        assert len(drawn) == prompts * (each + 1)
        places = loop.run.fact(f"reused_round_{number}")["positions"]
        assert len(places) == prompts and max(places) < prompts * each, "none is taken over twice"
        torch.testing.assert_close(
            loop.run.latents(f"round_{number}")[prompts * each :], loop.run.latents(f"round_{number - 1}")[places]
        )
    before = loop.adapter.state()
    loop.candidates(2)
    assert all(torch.equal(v, before[k]) for k, v in loop.adapter.state().items())
    assert len(loop.run.candidates("round_2")) == prompts * (each + 1)
