"""Exports a run's pairs: as a data set for diffusers' Diffusion-DPO training, or as folders winner/ and loser/."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..run.folder import RunFolder
from ..run.parquet import write_parquet
from .own import own_of

COLUMNS = {"jpg_0": "bytes", "jpg_1": "bytes", "label_0": "number", "label_1": "number", "caption": "text"}
"""Columns of Pick-a-Pic (arXiv 2305.01569), as diffusers' train_diffusion_dpo.py (research_projects) reads them.

jpg_0 and jpg_1 are encoded pictures; label_0 is 1 where jpg_0 is preferred, and that script swaps them where it is 0.
"""
DATA_FILE = "train-00000-of-00001.parquet"
"""Name by which datasets.load_dataset(folder) takes the file for the split "train"."""


@dataclass(frozen=True)
class Exported:
    """One pair: its prompt, and the files of its pictures."""

    prompt: str
    winner: Path
    loser: Path


def chosen_lists(run: RunFolder, names: Sequence[str] = ()) -> list[str]:
    """Names of the lists of pairs to export.

    Without `names`: those of all rounds of a headless run, else the last list that nodes stored; each with its own
    pairs. Raises UserError for a name that the run does not have, naming those that it has, and where it has none.
    """
    there = run.pair_lists()
    listed = ", ".join(f"{name} ({count})" for name, count in there.items())
    if not there:
        raise UserError(f"{run.path} holds no pairs yet. Run it at least to the pairs of its first round.")
    if wrong := [name for name in names if name not in there]:
        raise UserError(f"{run.path} has no pairs {wrong[0]!r}. It has: {listed}.")
    rounds = sorted((n for n in there if re.fullmatch(r"round_\d+", n)), key=lambda n: int(n.removeprefix("round_")))
    automatic = [name for name in there if not name.startswith("own_")]
    found = list(names) or rounds or automatic[-1:] or list(there)
    if names:
        return list(dict.fromkeys(found))
    return list(dict.fromkeys([*found, *(own.set_name for name in found if (own := own_of(run, name)))]))


def exported(run: RunFolder, names: Sequence[str]) -> list[Exported]:
    """The pairs of these lists, in order. Raises UserError where a picture is missing."""
    found = []
    for name in names:
        set_name = name.partition("_pairs_")[0]
        candidates = run.candidates(set_name)
        for pair in run.pairs(name):
            files = [run.image_file(set_name, position) for position in (pair.winner, pair.loser)]
            found.append(Exported(candidates[pair.winner].prompt, *files))
    if not found:
        raise UserError(f"{', '.join(names)} in {run.path} hold no pairs: all were rejected, or none fits the rule.")
    return found


def _as_data_set(pairs: Sequence[Exported], folder: Path) -> None:
    def rows() -> Iterator[tuple]:
        return ((p.winner.read_bytes(), p.loser.read_bytes(), 1.0, 0.0, p.prompt) for p in pairs)

    write_parquet(folder / DATA_FILE, COLUMNS, rows())


def _as_folders(pairs: Sequence[Exported], folder: Path) -> None:
    for side in ("winner", "loser"):
        (folder / side).mkdir()
        for number, pair in enumerate(pairs):
            shutil.copyfile(getattr(pair, side), folder / side / f"{number:05d}.png")
            (folder / side / f"{number:05d}.txt").write_text(pair.prompt + "\n", encoding="utf-8")


FORMS: dict[str, Callable[[Sequence[Exported], Path], None]] = {"diffusers": _as_data_set, "folders": _as_folders}
"""Forms of an export: a Parquet file with COLUMNS; winner/ and loser/ with captions, as own pairs are read."""


def export_pairs(run: RunFolder, out: Path, form: str, names: Sequence[str] = ()) -> tuple[int, list[str]]:
    """Export pairs into a new or empty folder: (number of pairs, names of their lists).

    The folder appears when it is complete. Raises UserError where it holds something, for an unknown form, and as
    `chosen_lists` and `exported` do.
    """
    if form not in FORMS:
        raise UserError(f"format {form!r} is unknown: give {' or '.join(FORMS)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; nothing there is overwritten. Give another folder.")
    lists = chosen_lists(run, names)
    pairs, beside = exported(run, lists), out.with_name(out.name + ".part")
    if beside.exists():
        raise UserError(f"{beside} is left from an export that was interrupted. Remove it, and start again.")
    beside.mkdir(parents=True)
    FORMS[form](pairs, beside)
    if out.exists():
        out.rmdir()
    beside.rename(out)
    return len(pairs), lists
