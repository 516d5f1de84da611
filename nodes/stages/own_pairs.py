"""Add Own Pairs: read a person's pairs from ComfyUI's input folder, encode them, and put them beside automatic ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...dpo_core.backends.comfyui import ComfyTextToImage, without_live_adapter
from ...dpo_core.errors import UserError
from ...dpo_core.pairs.edits import set_thumbs, thumbs_of
from ...dpo_core.pairs.own import Own, store_own_pairs, use_own
from ...dpo_core.pairs.own_files import doubts, find_own_pairs
from ...dpo_core.run.folder import RunFolder
from ..host.input_folder import inside
from ..host.runs import NodeProgress, mark
from ..sockets import Pairs


def source_path(source: str) -> Path:
    """The folder or file in ComfyUI's input folder. Raises UserError where it is empty or leads out of it."""
    path = inside(source.strip())
    if path is None:
        raise UserError(
            f"source {source!r} is not inside ComfyUI's input folder. Put the folders winner and loser into a folder "
            f"there, and give its name."
        )
    return path


def stamp(source: str) -> list:
    """Names, sizes and times of all files that the source may name: changed files run the node again."""
    try:
        path = source_path(source)
    except UserError:
        return []
    folder = path if path.is_dir() else path.parent
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return [(f.relative_to(folder).as_posix(), f.stat().st_size, f.stat().st_mtime_ns) for f in files]


def add_own_pairs(
    handle: Pairs, model: Any, vae: Any, source: str, prompt: str, weight: float, progress: NodeProgress
) -> tuple[Pairs, str]:
    """The pairs together with a person's own: (their handle, a summary).

    Own pairs are encoded once for a run, model and VAE. Raises UserError as `find_own_pairs` and `store_own_pairs` do.
    """
    candidates = handle.scored.candidates
    size = candidates.settings.width, candidates.settings.height
    found = find_own_pairs(source_path(source), prompt)
    backend = ComfyTextToImage(without_live_adapter(model), None, vae, *size)
    with RunFolder(candidates.folder) as run:
        own = Own(store_own_pairs(run, found, backend, candidates.concept, size, progress), weight)
        name = f"{handle.name}_own_{mark(own.set_name, own.weight)}"
        run.set_pairs(name, run.pairs(handle.name))
        for fact in ("window", "no_pairs", "yield"):
            run.set_fact(f"{fact}_{name}", run.fact(f"{fact}_{handle.name}"))
        set_thumbs(run, name, thumbs_of(run, handle.name))
        use_own(run, name, own)
        counted = f"{len(run.pairs(name))} automatic pairs, and {found.sentence(*size)}"
    visits = f"Each of yours is visited {weight:g} times as often as an automatic one."
    return replace(handle, name=name), " ".join([counted, visits, *doubts(found.pairs, candidates.concept.subject)])
