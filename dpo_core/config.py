"""The YAML file of `dreambooth-dpo run`: what to improve, from which photos and prompts, and the loop's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import Field, ValidationError, field_validator, model_validator

from .errors import UserError
from .scorer_config import HUB, HUB_NAME
from .scorer_config import FacesConfig as FacesConfig
from .scorer_config import QualityConfig as QualityConfig
from .scorer_config import RemoteConfig as RemoteConfig
from .scorer_config import ScorerConfig as ScorerConfig
from .scorer_config import VlmConfig as VlmConfig
from .settings import LoopSettings, OwnPairSettings, PersonalizeSettings, Settings
from .yaml_text import parse, read_text

_KINDS = {type(None): "empty", str: "one text: a colon and a space are needed between name and value"}


class MaskModelConfig(Settings):
    """A model that makes the masks of the reference photos. Needs opencv-python-headless, or onnxruntime."""

    path: Path = Field(description="A local .onnx file as rembg uses them: u2net, silueta, isnet, birefnet, ...")
    kind: Literal["auto", "u2net", "isnet", "birefnet"] = Field(
        "auto", description="How it wants its pictures; auto: by the file's name, u2net for an unknown one."
    )


class ConceptConfig(Settings):
    """The subject."""

    identifier: str = Field(min_length=1, description="The token that names the subject in prompts, e.g. sks.")
    class_noun: str = Field(min_length=1, description="What kind of thing it is, e.g. dog.")
    references: Path = Field(
        description="Folder of reference photos (png, jpg, webp, bmp, gif, tiff; heic and avif where readable). "
        "Of cut-outs, the opaque part is the subject's mask."
    )
    masks: Path | None = Field(
        None,
        description="Folder with a mask for every reference photo, same name, subject white; fidelity is then the "
        "subject's alone.",
    )
    held_out: Path | None = Field(
        None, description="Folder of further photos that training never saw; for the copy-paste guard."
    )
    mask_model: MaskModelConfig | None = Field(
        None,
        description="Makes the masks where there are none, neither a folder nor masks beside the photos nor cut-outs: "
        "{path, kind}.",
    )


class ModelConfig(Settings):
    """The personalized model."""

    path: Path = Field(
        description="diffusers folder (Stable Diffusion, SDXL, SD 3.5, Flux.1, Flux.2, Z-Image, Qwen-Image, Krea 2, "
        "Chroma), or a single .safetensors file."
    )
    configs: Path | None = Field(
        None,
        description="For a single file: diffusers folder of its base model, for configs, tokenizers, and the parts "
        "that the file lacks.",
    )
    lora: Path | None = Field(None, description="LoRA to put on first (the user's DreamBooth LoRA), safetensors.")
    lora_strength: float = Field(1.0, ge=-4.0, le=4.0, description="Strength of that LoRA.")
    candidate_lora: Path | None = Field(
        None,
        description="LoRA that is on while candidates are drawn, and at no other time: one that draws in few steps "
        "(LCM, Lightning, Hyper, Turbo). Needs sampling.candidate_steps.",
    )
    candidate_lora_strength: float = Field(1.0, ge=-4.0, le=4.0, description="Strength of that LoRA.")
    quantize: Literal["bnb-nf4", "torchao-int8", "torchao-fp8"] | None = Field(
        None,
        description="Quantize the frozen denoiser's linear layers: bnb-nf4 (4 bits, bitsandbytes), torchao-int8 or "
        "torchao-fp8 (8 bits, torchao). The LoRA trains on top. Empty: not quantized.",
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps, or auto.")


class OwnPairsConfig(OwnPairSettings):
    """A person's own pairs, trained on beside those of the pair rule (docs/inputs.md)."""

    source: Path = Field(
        description="Folder with the folders winner and loser (equal file names; PNG, JPEG, WebP; prompts in .txt of "
        "that name), or a CSV with the columns prompt, winner, loser."
    )


class RunConfig(LoopSettings):
    """Everything that `run` needs; relative paths are taken from the file's own folder."""

    model: ModelConfig
    concept: ConceptConfig
    scorers: ScorerConfig
    prompts: Path = Field(
        description="UTF-8 text file, one prompt a line; {identifier} and {class_noun} name the subject, [context] "
        "tags."
    )
    held_out_prompts: Path | None = Field(None, description="Prompts to evaluate on; empty: split off the file above.")
    own_pairs: OwnPairsConfig | None = Field(
        None,
        description="Your own pairs, trained on beside the automatic ones in every round: {source, prompt, weight}.",
    )
    output: Path = Field(description="The run folder; made if it does not exist.")
    log_with: tuple[str, ...] = Field(
        (),
        description="Trackers of accelerate that `run` logs to, a name or a list: tensorboard (below <output>/logs), "
        "wandb, ... Their packages are yours to install. May change when a run is resumed.",
    )
    personalize: PersonalizeSettings = Field(
        PersonalizeSettings(), description="Used by the command `personalize` alone."
    )

    @field_validator("log_with", mode="before")
    @classmethod
    def _one_name(cls, given: Any) -> Any:
        """One name for a list of one; empty for none."""
        return () if given is None else (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _few_steps(self) -> RunConfig:
        if self.model.candidate_lora is not None and not self.sampling.candidate_steps:
            raise ValueError(
                "model.candidate_lora is given, but sampling.candidate_steps is 0, so candidates would take the usual "
                "steps with a LoRA for few; set candidate_steps to what the LoRA is made for, mostly 4 or 8"
            )
        return self

    def loop(self) -> LoopSettings:
        return LoopSettings(**{name: getattr(self, name) for name in LoopSettings.model_fields})


def explain(error: ValidationError) -> str:
    """One line a wrong field: its dotted name, what is wrong, and the value."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(p) for p in problem["loc"]) or "the settings"
        given = "" if problem["type"] in ("missing", "extra_forbidden") else f" (given: {_short(problem['input'])})"
        text = {"extra_forbidden": "is not a setting; check its spelling and its place", "missing": "is required"}.get(
            problem["type"], problem["msg"]
        )
        # YAML reads no, on, 007 and 1e3 as other than text.
        if problem["type"] == "string_type" and isinstance(problem["input"], (bool, int, float)):
            text = "must be text; put it in quotes"
        lines.append(f"{name}: {text}{given}")
    return "\n".join(lines)


def _short(value: object) -> str:
    """repr of a value, shortened where it is long or nested deeply."""
    from reprlib import Repr

    short = Repr()
    short.maxstring = short.maxother = short.maxlong = 200
    return short.repr(value)


def read_config(path: Path) -> RunConfig:
    """Read and check a YAML file. Raises UserError that names every wrong field."""
    path = Path(path)
    try:
        text = read_text(path, "config file")
    except FileNotFoundError as error:
        raise UserError(
            f"config file {path} does not exist. `dreambooth-dpo config` prints one to start from."
        ) from error
    except OSError as error:
        raise UserError(
            f"config file {path} cannot be read: {error.strerror or error}. Give the path of a YAML file."
        ) from error
    data = parse(text, f"config file {path}")
    if not isinstance(data, dict):
        raise UserError(
            f"config file {path} holds no settings (it is {_KINDS.get(type(data), f'a {type(data).__name__}')}). "
            "`dreambooth-dpo config` prints one to start from."
        )
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        raise UserError(f"wrong settings in {path}:\n{explain(error)}") from error
    return _resolved(config, path.parent)


def _resolved(config: RunConfig, base: Path) -> RunConfig:
    """The config with absolute paths; hub names of scorers stay. Raises UserError for a hub name in another place."""

    def located(name: str, value: Path) -> Path:
        if not value.as_posix().startswith(HUB):
            return base / value.expanduser()  # an absolute path stays as it is
        if name not in ("scorers.reward", "scorers.judge") or (
            name == "scorers.judge" and config.scorers.judge_kind != "open_clip"
        ):
            raise UserError(
                f"{name} is {value.as_posix()!r}, but names on the hub are for scorers of open_clip alone. Download it "
                "(hf download) and give its folder."
            )
        if not HUB_NAME.fullmatch(value.as_posix()):
            raise UserError(
                f"{name} is {value.as_posix()!r}, which is no name on the hub: write {HUB}<organisation>/<model>, or "
                "the path of a folder."
            )
        return value

    def absolute(settings: Settings, prefix: str = "") -> Settings:
        changed = {}
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, Path):
                changed[name] = located(f"{prefix}{name}", value)
            elif isinstance(value, tuple) and all(isinstance(v, Path) for v in value):
                changed[name] = tuple(located(f"{prefix}{name}", v) for v in value)
            elif isinstance(value, Settings):
                changed[name] = absolute(value, f"{prefix}{name}.")
        return settings.model_copy(update=changed)

    return absolute(config)  # type: ignore[return-value]


EXAMPLE = {
    "model": {"path": "my-model", "lora": None, "lora_strength": 1.0, "device": "auto"},
    "concept": {"identifier": "sks", "class_noun": "dog", "references": "photos", "masks": None, "held_out": None},
    "scorers": {"reward": "scorers/clip", "augment": False, "judge": None, "judge_kind": "open_clip"},
    "prompts": "prompts.txt",
    "held_out_prompts": None,
    "output": "runs/my-dog",
}


def _range(field) -> str:
    """The limits or choices of a field in brackets, from its constraints."""
    if get_origin(field.annotation) is Literal:
        return f" [{' | '.join(str(a) for a in get_args(field.annotation))}]"
    limits = {
        n: getattr(m, n) for m in field.metadata for n in ("ge", "gt", "le", "lt") if getattr(m, n, None) is not None
    }
    low = f">= {limits['ge']}" if "ge" in limits else f"> {limits['gt']}" if "gt" in limits else ""
    high = f"<= {limits['le']}" if "le" in limits else f"< {limits['lt']}" if "lt" in limits else ""
    return f" [{', '.join(x for x in (low, high) if x)}]" if low or high else ""


def _yaml_lines(kind: type[Settings], values: dict, indent: str = "") -> list[str]:
    import json

    lines = []
    for name, field in kind.model_fields.items():
        value = values.get(name)
        if isinstance(value, dict):
            about = (field.annotation.__doc__ or "").splitlines()[0]
            lines += [f"{indent}# {about}", f"{indent}{name}:", *_yaml_lines(field.annotation, value, indent + "  ")]
        else:
            lines += [
                f"{indent}# {field.description}{_range(field)}",
                f"{indent}{name}: {json.dumps(value, ensure_ascii=False)}",
            ]
    return lines


def example_yaml() -> str:
    """A config that names every setting, each with what it means; paths are to be changed by the user."""
    values = RunConfig.model_validate(EXAMPLE).model_dump(mode="json")
    order = [*EXAMPLE, *(n for n in RunConfig.model_fields if n not in EXAMPLE)]
    ordered = type("Ordered", (), {"model_fields": {n: RunConfig.model_fields[n] for n in order}})
    return "\n".join(_yaml_lines(ordered, {n: values[n] for n in order})) + "\n"
