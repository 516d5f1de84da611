"""What the page shows beside widgets that are auto: the model's family and its values (web/auto.js)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...dpo_core.families import Family, SizeShift, family_of
from ...dpo_core.settings import AdapterSettings, TrainSettings
from ..sockets import AUTO, Candidates

FILES = ("checkpoints", "diffusion_models")
"""Kinds of model folders that hold denoisers."""
Shown = dict[str, Any]
"""{"family": its name, "values": {widget: value}}; values as the page writes them."""


def family_values(family: Family) -> Shown:
    """The family's values, by widget."""
    shift, beta = family.time_shift.value, family.beta.value
    values = {name: getattr(family, name).value for name in ("steps", "width", "height", "rank", "targets")}
    values |= {"cfg": family.guidance.value, "sampler_name": family.sampler.value, "scheduler": family.scheduler.value}
    values |= {"alpha": "the rank", "learning_rate": family.learning_rate.value}
    values |= {"beta": "adapted" if beta is None else beta, "auto_beta": "on" if beta is None else "off"}
    values["time_sampling"] = family.time_sampling.value
    values["time_shift"] = "by size" if isinstance(shift, SizeShift) else shift
    return {"family": family.name, "values": values}


def drawn_with(handle: Candidates, model: Any) -> Shown:
    """The values that candidates were drawn with."""
    from ...dpo_core.backends.comfyui import model_family

    s, sampler = handle.settings, handle.sampler
    values = {"steps": s.steps, "cfg": s.guidance, "width": s.width, "height": s.height}
    values |= {"sampler_name": sampler.name, "scheduler": sampler.scheduler}
    return {"family": model_family(model).name, "values": values}


def trained_with(family: Family, adapter: AdapterSettings, settings: TrainSettings) -> Shown:
    """The values of a training, settled."""
    kept = ("learning_rate", "auto_beta", "time_sampling", "time_shift")
    values = {**adapter.model_dump(), **{name: getattr(settings, name) for name in kept}}
    values["beta"] = "adapted" if settings.auto_beta == "on" else settings.beta
    return {"family": family.name, "values": values}


def auto_words(shown: Shown, widgets: Mapping[str, Any]) -> str:
    """One line that names the values of widgets that are auto; "" if none is."""
    values = shown["values"].items()  # None: a setting without a value here, as the shift of the model's own table
    auto = {name: value for name, value in values if value is not None and widgets.get(name) in (0, AUTO)}
    said = [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in auto.items()]
    return f"auto ({shown['family']}): {', '.join(said)}" if auto else ""


def of_file(folder: str, name: str) -> Shown | int:
    """The family of a model file and its values, or the HTTP status (400, 404) of the error."""
    import folder_paths

    from ...dpo_core.backends.comfyui import host

    if folder not in FILES:
        return 400
    path = folder_paths.get_full_path(folder, name) if name in folder_paths.get_filename_list(folder) else None
    found = host.class_of_file(path) if path else None
    return family_values(family_of(found[0], "flow", found[1])) if found else 404
