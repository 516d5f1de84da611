"""The doors that inputs come in by: each takes one input and either succeeds or raises an error of the pack."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis.strategies import SearchStrategy, lists, tuples

from ...dpo_core.backends.diffusers.devices import pick_device
from ...dpo_core.concept import Concept
from ...dpo_core.config import EXAMPLE, RunConfig, read_config
from ...dpo_core.evaluation.strength import read_strengths
from ...headless import config_concept, config_prompts, settled_config
from . import strategies


def _config(folder: Path, **concept: object) -> RunConfig:
    """A config in `folder` at 64 x 64 pixels, with changes of its concept."""
    given = {**EXAMPLE, "concept": {"identifier": "sks", "class_noun": "robot", "references": folder, **concept}}
    given |= {"prompts": folder / "prompts.txt", "sampling": {"width": 64, "height": 64}}
    return RunConfig.model_validate(given)


def config_door(text: str, folder: Path) -> None:
    """Read a config file; settle what is auto; take its device and loop settings."""
    (folder / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    config = read_config(folder / "config.yaml")
    pick_device(settled_config(config).model.device)
    config.loop()


def prompts_door(given: tuple[bytes, str, str], folder: Path) -> None:
    """Read a prompt file for a concept of any identifier and class noun, and split it."""
    data, identifier, noun = given
    (folder / "prompts.txt").write_bytes(data)
    concept = Concept(identifier, noun, np.zeros((1, 8, 8, 3), np.uint8))
    config_prompts(_config(folder), concept)


def _write(files: list[tuple[str, bytes]], folder: Path) -> Path:
    folder.mkdir()
    for name, data in files:
        (folder / name).write_bytes(data)
    return folder


def photos_door(files: list[tuple[str, bytes]], folder: Path) -> None:
    """Read a folder of photos."""
    config_concept(_config(folder, references=_write(files, folder / "photos")))


def masks_door(given: tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]], folder: Path) -> None:
    """Read a folder of photos and a folder of their masks."""
    photos, masks = (_write(files, folder / name) for files, name in zip(given, ("photos", "masks"), strict=True))
    config_concept(_config(folder, references=photos, masks=masks))


def strengths_door(text: str, folder: Path) -> None:
    """Read a list of strengths."""
    read_strengths(text)


@cache
def _pipeline():
    from ...dpo_core.backends.diffusers.model import load_pipeline
    from ...toybox.models import weights_folder

    return load_pipeline(weights_folder("pipeline"))


def lora_door(given: tuple[str, bytes], folder: Path) -> None:
    """Merge a LoRA file into the toybox's pipeline."""
    from ...dpo_core.backends.diffusers.loras import merge_lora, plan_merge

    name, data = given
    (folder / name).write_bytes(data)
    plan_merge(_pipeline(), folder / name)  # it changes nothing, so most files need no copy of the weights
    merge_lora(deepcopy(_pipeline()), folder / name, 1.0)


@dataclass(frozen=True)
class Door:
    """A door, what it is fed, and its share of all inputs (0..1)."""

    open: Callable[[Any, Path], None]
    inputs: SearchStrategy
    share: float


_files, _few = (lists(strategies.pictures(), min_size=least, max_size=most) for least, most in ((0, 4), (1, 2)))
_identifiers, _nouns = strategies.words(("sks", "ohwx")), strategies.words(("robot", "dog"))
DOORS = {
    "config": Door(config_door, strategies.configs(), 0.35),
    "prompts": Door(prompts_door, tuples(strategies.prompt_files(), _identifiers, _nouns), 0.2),
    "photos": Door(photos_door, _files, 0.15),
    "masks": Door(masks_door, tuples(_few, _few), 0.15),
    "strengths": Door(strengths_door, strategies.strength_texts, 0.05),
    "lora": Door(lora_door, strategies.loras(), 0.1),
}


def enter(door: Door, given: Any) -> BaseException | None:
    """Feed one input in a folder of its own; None for success, else the error that came out."""
    with tempfile.TemporaryDirectory(prefix="inputs_") as folder:
        try:
            door.open(given, Path(folder))
        except Exception as error:
            return error
    return None
