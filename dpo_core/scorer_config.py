"""The scorers' part of the YAML file of `dreambooth-dpo run`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from .settings import Settings

HUB = "hf-hub:"
"""Start of a scorer's name on the hub; such a name is no path."""
HUB_NAME = re.compile(rf"{HUB}[\w.-]+/[\w.-]+")


class RemoteConfig(Settings):
    """A scorer on another machine (docs/http_scorer.md)."""

    url: str = Field(min_length=8, description="Address of the server, such as http://gpu2:8000.")
    axis: Literal["fidelity", "alignment"] = Field(description="What its scores mean.")
    role: Literal["reward", "judge"] = Field(
        "reward", description="reward: trained on, beside the other scorers of its axis. judge: only measures."
    )
    batch_size: int = Field(16, ge=1, le=1024, description="Pictures in one request. Unit: images.")
    timeout: float = Field(120.0, gt=0.0, le=86400.0, description="Time for one request. Unit: seconds.")
    retries: int = Field(4, ge=0, le=100, description="Further tries of a request that failed on the way.")


class FacesConfig(Settings):
    """Identity of a person by faces, as a further fidelity scorer (docs/faces.md). Needs opencv-python-headless."""

    detector: Path = Field(description="YuNet, a local .onnx file: finds faces.")
    recognizer: Path = Field(description="SFace, a local .onnx file: compares faces.")
    min_confidence: float = Field(
        0.6, gt=0.0, lt=1.0, description="Confidence from which a detection is a face. Unit: share."
    )
    person: bool = Field(
        False, description="Use it although the class noun is not in the list of persons (man, woman, boy, ...)."
    )


class QualityConfig(Settings):
    """Quality of the pictures by a model of people's preferences (docs/judges.md)."""

    folder: Path = Field(description="Folder of PickScore_v1, or another CLIP of this kind, in transformers' form.")
    role: Literal["guard", "reward"] = Field(
        "guard",
        description="guard: only measures, see stop.quality_fall. reward: trained on, as a further alignment scorer.",
    )


class VlmConfig(Settings):
    """A vision-language model that is asked yes/no questions of the prompt (docs/judges.md)."""

    folder: Path = Field(description="Folder of the model in transformers' form (Qwen3-VL, Qwen2.5-VL, LLaVA, ...).")
    role: Literal["judge", "reward"] = Field(
        "judge",
        description="judge: only measures alignment, in place of the other judge's. reward: trained on, as a further "
        "alignment scorer.",
    )
    parts: bool = Field(True, description="Ask about the prompt's parts with a colour too, not about the whole alone.")
    unit: Literal["probability", "log_odds"] = Field(
        "probability", description="Score of an answer: probability of yes against no (0..1), or its log-odds."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Precision of its weights; auto: half on a GPU, fp32 on a CPU."
    )
    batch_size: int = Field(8, ge=1, le=256, description="Pictures asked about at a time. Unit: images.")


class ScorerConfig(Settings):
    """Scorers by local folder: open_clip (open_clip_config.json, open_clip_model.safetensors, tokenizer), CLIP or
    SigLIP in transformers' form, DINOv2 beside them.
    """

    reward: Path | Annotated[tuple[Path, ...], Field(min_length=1)] = Field(
        description="Folder of the scorer that trains (fidelity and alignment), or a list of them; after the first, "
        "dinov2 too."
    )
    augment: bool = Field(
        False,
        description="Rewards take the mean over 4 views of a picture (flipped, shifted): harder to hack, 4 times the "
        "scoring.",
    )
    fidelity: Literal["picture", "patches"] = Field(
        "picture",
        description="What fidelity of the rewards compares. picture: the whole picture, or its subject where there are "
        "masks. patches: parts of the subject, wherever they are, told from their background by what recurs over the "
        "photos (vision transformers; photos in several places).",
    )
    judge: Path | None = Field(None, description="Folder of a scorer of another backbone that only measures.")
    judge_kind: Literal["open_clip", "dinov2", "transformers"] = Field(
        "open_clip",
        description="What the judge's folder holds; dinov2 judges fidelity alone; transformers: CLIP, SigLIP or "
        "SigLIP 2 with config.json.",
    )
    judge_fidelity: Literal["picture", "patches"] = Field("picture", description="What the judge's fidelity compares.")
    remote: tuple[RemoteConfig, ...] = Field(
        (), description="Scorers on other machines: a list of {url, axis, role, batch_size, timeout, retries}."
    )

    faces: FacesConfig | None = Field(
        None,
        description="Identity by faces, trained on beside the other fidelity scorers: {detector, recognizer, "
        "min_confidence, person}. For persons only.",
    )
    quality: QualityConfig | None = Field(
        None, description="Quality by PickScore, a guard unless asked otherwise: {folder, role}."
    )
    vlm: VlmConfig | None = Field(
        None,
        description="Alignment by a vision-language model: {folder, role, parts, unit, precision, batch_size}.",
    )

    @property
    def rewards(self) -> tuple[Path | str, ...]:
        """All scorers that train: folders, and names on the hub as text."""
        given = (self.reward,) if isinstance(self.reward, Path) else self.reward
        return tuple(p.as_posix() if p.as_posix().startswith(HUB) else p for p in given)
