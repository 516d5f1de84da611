"""What differs between model families, as data: families.json holds every value with its source.

A setting that is None (`auto`, and 0 or "auto" on a node) takes the value of the model's family.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict
from typing_extensions import NamedTuple  # pydantic depends on it; Python 3.10's own cannot be generic

from .errors import UserError
from .settings import AdapterSettings, SamplingSettings, TrainSettings

T = TypeVar("T")
S = TypeVar("S", SamplingSettings, AdapterSettings, TrainSettings)
OBJECTIVE_BETAS = {"ipo": 500.0, "hinge": 1000.0, "reward_gap": 2000.0, "kto": 2000.0, "mapo": 0.1, "raft": 1.0}
OBJECTIVE_BETAS |= {"nft": 1.0, "awm": 1.0}
"""beta of the objectives other than dpo, for eps models (objectives.py); dgpo has dpo's."""
ANY_MODEL = ("mapo", "raft", "nft", "awm")
"""Objectives whose beta does not depend on the kind of prediction."""


class Sourced(NamedTuple, Generic[T]):
    """A value and the key of its source."""

    value: T
    source: str


class SizeShift(BaseModel):
    """A shift that grows with the picture: exp(mu), mu linear in the number of image tokens between two points.

    Flux.1's rule (get_lin_function and time_shift of black-forest-labs/flux).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[float, float]
    mu: tuple[float, float]

    def at(self, tokens: float) -> float:
        """The shift for a picture of so many tokens. With (256, 0.5), (4096, 1.15): 256 -> 1.649, 4096 -> 3.158."""
        slope = (self.mu[1] - self.mu[0]) / (self.tokens[1] - self.tokens[0])
        return math.exp(self.mu[0] + slope * (tokens - self.tokens[0]))


class Family(BaseModel):
    """One entry of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kinds: tuple[Literal["eps", "v", "flow", "cosmos"], ...]
    """Kinds of prediction that its models have."""
    comfyui: tuple[str, ...]
    """Classes of comfy.supported_models."""
    match: dict[str, Any] = {}
    """Values of the denoiser's configuration that tell it from a family of the same class."""
    diffusers: tuple[str, ...]
    """Classes of diffusers' pipelines."""
    lora_names: Literal["diffusers", "native"]
    """Whose layer names a LoRA file has, as kohya's tools name them."""
    latents_per_token: int
    """Places of the latent (h x w) in one image token, for a shift by size."""
    time_sampling: Sourced[Literal["table", "uniform", "logit_normal"]]
    time_shift: Sourced[float | SizeShift]
    beta: Sourced[float | None]
    """beta of the objective dpo; None: none is trusted, so it is adapted to the margins (auto-beta)."""
    learning_rate: Sourced[float]
    rank: Sourced[int]
    targets: Sourced[Literal["all", "attention+ff", "attention"]]
    steps: Sourced[int]
    guidance: Sourced[float]
    width: Sourced[int]
    height: Sourced[int]
    sampler: Sourced[str]
    """Sampler and scheduler by ComfyUI's names."""
    scheduler: Sourced[str]
    note: str = ""

    def shift(self, latent_shape: Sequence[int]) -> float:
        """The shift of training times for latents [C, (1,) h, w]."""
        value = self.time_shift.value
        if isinstance(value, SizeShift):
            return value.at(latent_shape[-2] * latent_shape[-1] / self.latents_per_token)
        return value


@cache
def table() -> tuple[tuple[Family, ...], dict[str, str]]:
    """All families, and the sources by key."""
    data = json.loads(Path(__file__).with_name("families.json").read_text(encoding="utf-8"))
    return tuple(Family.model_validate(entry) for entry in data["families"]), data["sources"]


def family_of(name: str, kind: str, config: Mapping[str, Any] | None = None) -> Family:
    """The family of a model: of a class of comfy.supported_models or of diffusers' pipelines.

    kind: its prediction ("eps", "v", "flow", "cosmos"), for a class that is not in the table. config: the denoiser's
    configuration.
    """
    config = config or {}
    for family in table()[0]:
        listed = name in family.comfyui and all(config.get(k) == v for k, v in family.match.items())
        if listed or name in family.diffusers:
            return family
    return next(f for f in table()[0] if not f.comfyui and kind in f.kinds)


AUTO: Mapping[str, Mapping[str, Any]] = {
    "sampling": {"steps": None, "guidance": None, "width": None, "height": None},
    "adapter": {"rank": None, "alpha": None, "targets": "auto"},
    "train": {
        "beta": None, "auto_beta": "auto", "learning_rate": None, "time_sampling": "auto", "time_shift": None,
    },
}  # fmt: skip
"""The settings that a family has a value for, by section, and their value that means auto."""


def unset_as_auto(settings: S, values: Mapping[str, Any]) -> S:
    """The settings with auto for those that were not given. values: a section of AUTO."""
    return settings.model_copy(update={k: v for k, v in values.items() if k not in settings.model_fields_set})


def sampling_for(settings: SamplingSettings, family: Family) -> SamplingSettings:
    """The settings with the family's values where they are None. Raises pydantic's error as SamplingSettings does."""
    return _filled(settings, {name: getattr(family, name).value for name in ("steps", "guidance", "width", "height")})


def adapter_for(settings: AdapterSettings, family: Family) -> AdapterSettings:
    """The settings with the family's values where they are auto; an alpha that is auto is the rank."""
    rank = settings.rank or family.rank.value
    targets = family.targets.value if settings.targets == "auto" else settings.targets
    return _filled(settings.model_copy(update={"targets": targets}), {"rank": rank, "alpha": float(rank)})


def training_for(settings: TrainSettings, family: Family, latent_shape: Sequence[int]) -> TrainSettings:
    """The settings with the family's values where they are auto. latent_shape: that of a candidate, [C, (1,) h, w].

    A beta that stays None is adapted to the margins. Raises UserError where an objective has no known beta.
    """
    sampling = family.time_sampling.value if settings.time_sampling == "auto" else settings.time_sampling
    shift = settings.time_shift
    if shift is None and sampling != "table":  # the model's own table has its shift already
        shift = family.shift(latent_shape)
    found = {"time_sampling": sampling, "time_shift": shift, **_beta(settings, family)}
    return _filled(settings.model_copy(update=found), {"learning_rate": family.learning_rate.value})


def _beta(settings: TrainSettings, family: Family) -> dict[str, Any]:
    """beta and auto_beta, settled."""
    adaptive = settings.auto_beta == "on" or (
        settings.auto_beta == "auto" and settings.beta is None and _own_beta(settings, family) is None
    )
    if adaptive and settings.objective != "dpo":
        raise UserError(
            f"{family.name} has no known beta for the objective {settings.objective}, and auto-beta is for dpo alone. "
            "Set beta, or choose the objective dpo."
        )
    if adaptive:
        return {"auto_beta": "on"}
    beta = settings.beta if settings.beta is not None else _own_beta(settings, family)
    if beta is None:
        raise UserError(f"auto_beta is off, and no beta is known for {family.name}. Set beta, or auto_beta to auto.")
    return {"auto_beta": "off", "beta": beta}


def _own_beta(settings: TrainSettings, family: Family) -> float | None:
    """The family's beta for the objective, if one is known."""
    trusted = family.beta.value
    if settings.objective in ("dpo", "dgpo") or (trusted is None and settings.objective not in ANY_MODEL):
        return trusted
    return OBJECTIVE_BETAS[settings.objective]


def _filled(settings: Any, values: Mapping[str, Any]) -> Any:
    """A checked copy of the settings with `values` where they have None."""
    missing = {name: value for name, value in values.items() if getattr(settings, name) is None}
    return type(settings)(**{**settings.model_dump(), **missing})
