"""The nodes: schema/ declares them, stages/ does their work, host/ holds what only a ComfyUI page needs.

A node's schema and its stage are files of the same name.
"""

from __future__ import annotations


def node_classes() -> list:
    """All node classes of the pack, in the order of the loop; each refuses wrong values of its widgets."""
    from .schema import (
        compare_loras,
        concept,
        evaluate,
        finish,
        inspect_pairs,
        keep_best,
        own_pairs,
        pairs,
        prompt_set,
        rounds,
        sample,
        save,
        score,
        strength,
        subject_photos,
        toybox,
        train,
    )
    from .values import checked

    stages = (
        toybox,
        subject_photos,
        concept,
        prompt_set,
        sample,
        score,
        pairs,
        inspect_pairs,
        own_pairs,
        finish,
        train,
        evaluate,
        keep_best,
        strength,
        compare_loras,
        save,
        rounds,
    )
    return [checked(node) for module in stages for node in module.NODES]
