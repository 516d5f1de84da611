"""The candidates that are scored: the first round's, drawn once."""

from __future__ import annotations

from pathlib import Path

from ..common.concepts import EARLIER
from ..methods.runs import UNSEEN


def drawn(seed: int, out: Path) -> Path:
    """The run folder with the candidates "round_0": 24 prompts with 10 each. What exists is not drawn again.

    The model is trained on the photos of one background. The folder is the one that the rows of `benchmarks.methods`
    begin from.
    """
    from ...toybox.concepts import concept_from_seed
    from ...toybox.run import start_of, toy_loop, toy_prompts

    toy, folder = concept_from_seed(seed), out / f"concept_{seed}" / "shared"
    if (folder / "drawn").is_file():
        return folder
    start = start_of(toy, folder / "start")
    loop = toy_loop(toy, folder, start, EARLIER, resume=True, prompts=toy_prompts(toy, UNSEEN))
    try:
        loop.begin(0)
        loop.candidates(0)
    finally:
        loop.run.close()
    (folder / "drawn").touch()
    return folder
