"""Compares LoRAs of any tool without a host: on the model of a config, its held-out prompts and its scorers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from .dpo_core.config import RunConfig
from .dpo_core.errors import UserError
from .dpo_core.evaluation.compare import WITHOUT, Comparison
from .dpo_core.json_values import to_json
from .dpo_core.loop.comparison import compare_models, whole
from .dpo_core.loop.rounds import Loop
from .dpo_core.progress import Progress, silent
from .dpo_core.protocols import TextToImage
from .dpo_core.run.files import atomic_path, write_json
from .dpo_core.training.adapter import Adapter
from .headless import check_merges, config_model, open_loop, parts_from_config, settled_config

if TYPE_CHECKING:
    from .dpo_core.backends.diffusers.loading import Model


@dataclass(frozen=True)
class Entry:
    """A LoRA file at one strength, under the name that tables show; `set`: its pictures in the run folder."""

    file: Path
    strength: float
    name: str
    set: str


def entries(loras: Sequence[Path], strengths: Sequence[float]) -> list[Entry]:
    """Every LoRA at every strength, in the order given.

    Names are file names; where two are equal, with their folders, and with the strength where there are several. Raises
    UserError where two files hold the same LoRA, or for a strength of 0, which is the model without a LoRA.
    """
    from .dpo_core.training.lora_files import lora_file

    if 0 in strengths:
        raise UserError(f"strength 0 is the model {WITHOUT}, which is always measured. Leave it out.")
    files = [lora_file(path) for path in loras]
    digests = [sha256(file.read_bytes()).hexdigest()[:16] for file in files]
    for number, digest in enumerate(digests):
        if (first := digests.index(digest)) < number:
            raise UserError(f"{files[number]} holds the same LoRA as {files[first]}. Name each LoRA once.")
    stems = [file.stem for file in files]
    names = [
        f"{file.parent.name}/{file.stem}" if stems.count(file.stem) > 1 else file.stem for file in files
    ]  # fmt: skip
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    many = len(strengths) > 1
    return [
        Entry(file, strength, f"{name} at {strength:g}" if many else name, f"compare_{digest}_{strength:g}")
        for file, digest, name in zip(files, digests, names, strict=True)
        for strength in strengths
    ]


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

    config, given = settled_config(config), entries(loras, strengths)
    for entry in given:
        read_layers(entry.file)
    check_merges(config)
    parts = parts_from_config(config)
    for entry in given:
        plan_merge(parts.model.pipe, entry.file)
    adapter = Adapter(parts.model.denoiser, config.adapter, seed=config.sampling.seed)
    loop = open_loop(config, parts, adapter, True, progress)
    sets = {WITHOUT: "compare_without", **{entry.name: entry.set for entry in given}}
    models = {sets[WITHOUT]: loop.adapted_model()} | {entry.set: _merged(loop, config, entry) for entry in given}
    found = compare_models(loop, sets, models)
    for name, picture in (
        ("plane.png", figure_image(plane_figure(found))),
        ("sheet.png", contact_sheet(loop.run, found, sets)),
    ):
        with atomic_path(config.output / name) as beside:
            picture.save(beside)
    files = {entry.name: {"file": str(entry.file), "strength": entry.strength} for entry in given}
    write_json(config.output / "comparison.json", {**to_json(found), "files": files})
    return found


@contextmanager
def _merged(loop: Loop, config: RunConfig, entry: Entry) -> Iterator[TextToImage]:
    """A freshly loaded model whose weights hold the LoRA; the loop's own where every picture is there already.

    Loaded again for each LoRA: taking one out of half-precision weights would not give back what they were.
    """
    if whole(loop, entry.set):
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
