"""Compares LoRAs of any tool without a host: on the model of a config, its held-out prompts and its scorers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .dpo_core.config import RunConfig
from .dpo_core.evaluation.compare import WITHOUT, Comparison
from .dpo_core.json_values import to_json
from .dpo_core.loop.comparison import Entry, compare_models, entries, whole
from .dpo_core.loop.rounds import Loop
from .dpo_core.progress import Progress, silent
from .dpo_core.protocols import TextToImage
from .dpo_core.run.files import atomic_path, write_json
from .dpo_core.training.adapter import Adapter
from .headless import check_merges, config_model, open_loop, parts_from_config, settled_config

if TYPE_CHECKING:
    from .dpo_core.backends.diffusers.loading import Model


def _entries(loras: Sequence[Path], strengths: Sequence[float]) -> dict[str, Entry]:
    """Every LoRA at every strength, by the name of its set in the run folder; see `entries`."""
    from .dpo_core.training.lora_files import lora_file

    files = [lora_file(path) for path in loras]
    given = entries([(file, strength) for file in files for strength in strengths])
    return {f"compare_{entry.digest}_{entry.strength:g}": entry for entry in given}


def compare_loras(
    config: RunConfig, loras: Sequence[Path], strengths: Sequence[float] = (1.0,), progress: Progress = silent
) -> Comparison:
    """Measure LoRAs of any tool, each merged into the model, on the same held-out prompts and seeds; rank them.

    Pictures and scores are kept in `config.output`: LoRAs that were compared there before are not drawn again. Writes
    plane.png, sheet.png and comparison.json there. Raises UserError before anything is drawn when a LoRA does not fit
    the model, or when the folder holds pictures made with other settings.
    """
    from .dpo_core.backends.diffusers.loras import plan_merge, read_layers
    from .dpo_core.report.plots.compare import contact_sheet, plane_figure
    from .dpo_core.report.plots.figure import figure_image

    config, given = settled_config(config), _entries(loras, strengths)
    for entry in given.values():
        read_layers(entry.file)
    check_merges(config)
    parts = parts_from_config(config)
    for entry in given.values():
        plan_merge(parts.model.pipe, entry.file)
    adapter = Adapter(parts.model.denoiser, config.adapter, seed=config.sampling.seed)
    loop = open_loop(config, parts, adapter, True, progress)
    sets = {WITHOUT: "compare_without", **{entry.name: kept for kept, entry in given.items()}}
    models = {sets[WITHOUT]: loop.adapted_model()} | {
        kept: _merged(loop, config, kept, entry) for kept, entry in given.items()
    }
    found = compare_models(loop, sets, models)
    for name, picture in (
        ("plane.png", figure_image(plane_figure(found))),
        ("sheet.png", contact_sheet(loop.run, found, sets)),
    ):
        with atomic_path(config.output / name) as beside:
            picture.save(beside)
    files = {entry.name: {"file": str(entry.file), "strength": entry.strength} for entry in given.values()}
    write_json(config.output / "comparison.json", {**to_json(found), "files": files})
    return found


@contextmanager
def _merged(loop: Loop, config: RunConfig, kept: str, entry: Entry) -> Iterator[TextToImage]:
    """A freshly loaded model whose weights hold the LoRA; the loop's own where every picture is there already.

    Loaded again for each LoRA: taking one out of half-precision weights would not give back what they were.
    """
    if whole(loop.run, kept, len(loop.prompts.held_out), max(2, config.evaluation.seeds_per_prompt)):
        yield loop.model
        return
    device = str(loop.model.device)
    loop.put_scorers_aside()
    loop.model.pipe.to("cpu")
    model: Model = config_model(config, device, {entry.file: entry.strength})
    try:
        yield model
    finally:
        model.pipe.to("cpu")
