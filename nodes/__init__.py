"""The nodes: schema/ what a user drags in, stages/ what they do, host/ what only a ComfyUI page needs.

Same stem, same stage.
"""

from __future__ import annotations


def node_classes() -> list:
    """Every node class of the pack, in the order of the loop."""
    from .schema import (
        concept,
        evaluate,
        finish,
        inspect_pairs,
        keep_best,
        pairs,
        prompt_set,
        rounds,
        sample,
        save,
        score,
        strength,
        toybox,
        train,
    )

    stages = (
        toybox,
        concept,
        prompt_set,
        sample,
        score,
        pairs,
        inspect_pairs,
        finish,
        train,
        evaluate,
        keep_best,
        strength,
        save,
        rounds,
    )
    return [node for module in stages for node in module.NODES]
