"""The personalized start of a run: fidelity of its photos, the images that measure it, and its record on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..concept import Concept
from ..errors import UserError
from ..prompts import PromptSet
from ..protocols import Scorer
from ..run.files import atomic_path, write_json
from ..run.same_run import known_changes
from ..seeds import derive_seed
from ..settings import SamplingSettings
from ..training.adapter import Adapter
from ..training.dreambooth import Probe, Start
from ..training.lora_files import save_lora


def photos_fidelity(fidelity: Scorer, concept: Concept) -> float | None:
    """Mean fidelity score of real photos of the concept: the held-out photos, else the reference photos.

    A reference photo's mean cosine with all n references includes its own 1; (n m - 1)/(n - 1) removes it. With masks
    the references are cut out, so that no photo equals one, and nothing is removed. None where there is one photo only
    (or the same one several times): it would be compared with itself.
    """
    if concept.held_out is None and concept.different_photos < 2:
        return None
    photos = concept.references if concept.held_out is None else concept.held_out
    mean, count = float(np.mean(fidelity.score(photos, [concept.subject] * len(photos)))), len(photos)
    own = concept.held_out is None and concept.masks is None
    return (count * mean - 1) / (count - 1) if own else mean


def start_probe(prompts: PromptSet, sampling: SamplingSettings, scorers: Sequence[Scorer]) -> Probe:
    """Every second held-out prompt, three images each, with seeds apart from those of candidates and evaluation."""
    shown = [p for p in prompts.held_out[::2] for _ in range(3)]
    return Probe(shown, [derive_seed(55, i) for i in range(len(shown))], sampling, scorers)


def kept_start(folder: Path, described: dict) -> dict | None:
    """The record of a start that was made before, or None. Raises UserError when its settings differ."""
    record = folder / "start.json"
    if not (record.is_file() and (folder / "start.safetensors").is_file()):
        return None
    kept = json.loads(record.read_text(encoding="utf-8"))
    if changed := known_changes(kept.get("described", {}), described):
        raise UserError(
            f"{folder} holds a start made with other settings: {', '.join(changed)}. Choose another folder with --out."
        )
    return kept


def save_start(folder: Path, adapter: Adapter, start: Start, described: dict, component: str = "unet") -> dict:
    """Write curve.png, start.safetensors and, last, the record start.json; return the record."""
    from ..report.plots.figure import figure_image
    from ..report.plots.path import path_figure

    record = {**asdict(start), "curve": [{"step": p.step, **p.scores} for p in start.curve], "described": described}
    with atomic_path(folder / "curve.png") as beside:
        figure_image(path_figure([], record["curve"])).save(beside)
    save_lora(adapter, folder / "start.safetensors", {"dreambooth_dpo.start": start.sentence}, component)
    write_json(folder / "start.json", record)
    return record
