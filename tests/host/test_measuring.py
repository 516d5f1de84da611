"""Inputs shared by the nodes that measure: defined once, equal except for tooltips."""

from __future__ import annotations

import pytest


@pytest.mark.usefixtures("comfyui")
def test_nodes_that_measure_share_their_inputs():
    from dreambooth_dpo.nodes.schema.evaluate import Evaluate
    from dreambooth_dpo.nodes.schema.inputs import judge_input, picture_inputs, scoring_inputs, seeds_input
    from dreambooth_dpo.nodes.schema.keep_best import KeepBest
    from dreambooth_dpo.nodes.schema.rounds import Rounds
    from dreambooth_dpo.nodes.schema.strength import StrengthSweep

    own = {"tooltip", "lazy", "min"}
    names = ["candidates", "scorer", "judge", "seeds_per_prompt", "seed"]
    shared = [*scoring_inputs(""), *picture_inputs()]
    assert [i.id for i in shared] == names

    def plain(found) -> dict:
        return {k: v for k, v in found.as_dict().items() if k not in own}

    for node in (Evaluate, KeepBest, StrengthSweep):
        inputs = [i for i in node.define_schema().inputs if i.id in names]
        assert [i.id for i in inputs] == names
        for made, expected in zip(inputs, shared, strict=True):
            assert type(made) is type(expected) and plain(made) == plain(expected), f"{node.__name__}.{made.id}"
    inputs = {i.id: i for i in Rounds.define_schema().inputs}
    assert plain(inputs["judge"]) == {**plain(judge_input("")), "rawLink": True}
    assert plain(inputs["seeds_per_prompt"]) == {**plain(seeds_input()), "optional": True, "advanced": True}
