"""The command `join`: one LoRA file that replaces the config's LoRA and the run's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..dpo_core.errors import UserError

if TYPE_CHECKING:
    from ..dpo_core.backends.diffusers.lora_places import Joined

OURS = "dreambooth_dpo_lora.safetensors"
"""The LoRA of a run, in its output folder."""


def join(
    config: Annotated[Path, typer.Argument(help="The run's YAML file: names the model, model.lora and the output.")],
    lora: Annotated[
        Path | None, typer.Option(help=f"LoRA to add to model.lora, of any tool [default: <output>/{OURS}].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; an existing one is kept [default: <lora>_joined.safetensors].")
    ] = None,
    strength: Annotated[float, typer.Option(min=-4.0, max=4.0, help="Strength of the added LoRA.")] = 1.0,
    own_ranks: Annotated[
        bool,
        typer.Option("--own-ranks", help="Do not fill up to one rank: smaller, but older loaders misread it."),
    ] = False,
) -> None:
    """Join model.lora (at model.lora_strength) and the run's LoRA into one file, to be loaded at strength 1."""
    from ..dpo_core.backends.diffusers.lora_places import join_files
    from ..dpo_core.backends.diffusers.quiet import quiet_libraries
    from ..dpo_core.config import read_config
    from ..dpo_core.training.lora_files import lora_file, read_metadata

    settings, console = read_config(config), Console()
    given = settings.model
    ours = lora_file(lora or settings.output / OURS)
    if given.lora is None:
        raise UserError(
            f"{config} has no model.lora, so there is nothing to join: {ours.name} alone holds all changes. Set "
            "model.lora if the model was loaded with a LoRA."
        )
    path = out or ours.with_name(f"{ours.stem}_joined.safetensors")
    quiet_libraries()
    loras = [(lora_file(given.lora), given.lora_strength), (ours, strength)]
    done = join_files(given.path, given.configs, loras, path, not own_ranks)
    for line in _lines(done, loras, read_metadata(ours).get("dreambooth_dpo.rounds") == "0"):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _lines(done: Joined, loras: list[tuple[Path, float]], kept_original: bool) -> list[str]:
    """What the command says. kept_original: the run kept the model as it was, so its LoRA changes nothing."""
    ranks = f"rank {done.ranks[0]}" if len(set(done.ranks)) == 1 else f"ranks {done.ranks[0]} to {done.ranks[1]}"
    parts = (f"{path.name} (strength {s:g}, {n} layers)" for (path, s), n in zip(loras, done.sources, strict=True))
    lines = [
        f"Joined: {' + '.join(parts)}",
        f"File:   {done.file}",
        f"{done.layers} layers, {ranks}, {str(done.dtype).removeprefix('torch.')}. Largest relative difference of a "
        f"layer's change from the sum of the two, read again: {done.difference:.1e}",
        f"Load it at strength 1 in place of {loras[0][0].name}, not beside it.",
    ]
    if kept_original:
        lines.append(f"The run kept the original, so {loras[1][0].name} changes nothing.")
    return lines
