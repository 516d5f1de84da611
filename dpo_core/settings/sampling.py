"""Settings of how candidates are drawn."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from .base import Settings, Widget

AUTO_CHUNK = 16
"""Pictures committed together where free memory decides how many are drawn at once.

A set must be planned alike on any machine.
"""


_LATER = (
    ("guidance_until", 1), ("draft_steps", 0), ("lora_spread", 0), ("base_candidates", 0), ("photo_candidates", False),
    ("candidate_steps", 0), ("candidate_guidance", None), ("earlier_rounds", 0),
)  # fmt: skip
"""Settings that came later, with the value that is off."""


class SamplingSettings(Settings):
    """How candidates are drawn."""

    candidates_per_prompt: Annotated[int, Widget()] = Field(
        8,
        ge=2,
        le=256,
        description="Candidates for each training prompt and round; 8 to 16 are usual. More give more and clearer "
        "pairs, and take longer in proportion. Unit: images.",
    )
    steps: Annotated[int | None, Widget(default=0, off=0, least=0)] = Field(
        16,
        ge=1,
        le=1000,
        description="Sampler steps. Empty, or 0 on the node: auto, as usual for the model's family. Unit: steps.",
    )
    guidance: Annotated[float | None, Widget("cfg", default=0, off=0, least=0, step=0.1)] = Field(
        4.0,
        ge=1.0,
        le=30.0,
        description="Classifier-free guidance scale (arXiv 2207.12598); 1 is off. Use what you use this model with. "
        "Empty, or 0 on the node: auto, as usual for the model's family.",
    )
    guidance_until: Annotated[float, Widget(since=4, step=0.05, advanced=True)] = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="Share of the steps, from the first, that guidance acts in (arXiv 2404.07724). A later step costs "
        "half and ignores the negative prompt. 1: all steps.",
    )
    draft_steps: Annotated[int, Widget(since=5, advanced=True)] = Field(
        0,
        ge=0,
        le=1000,
        description="Sampler steps of quick drafts, fewer than the sampler's steps; a third of them is usual. Only "
        "candidates in pairs of drafts are then drawn in full. 0: no drafts. Unit: steps.",
    )
    width: Annotated[int | None, Widget(default=0, off=0, least=0)] = Field(
        512,
        ge=64,
        le=4096,
        multiple_of=8,
        description="Width. Empty, or 0 on the node: auto, the size that the model's family was made for. Unit: "
        "pixels.",
    )
    height: Annotated[int | None, Widget(default=0, off=0, least=0)] = Field(
        512,
        ge=64,
        le=4096,
        multiple_of=8,
        description="Height. Empty, or 0 on the node: auto, as for width. Unit: pixels.",
    )
    batch_size: Annotated[int, Widget(advanced=True)] = Field(
        8,
        ge=0,
        le=1024,
        description="Images sampled at once; halved when memory runs out. 0: as many as free memory holds, up to "
        f"{AUTO_CHUNK}. A change starts a new set. Unit: images.",
    )
    seed: Annotated[int, Widget(advanced=True)] = Field(
        0, ge=0, lt=2**31, description="The noise seed of each candidate is derived from it."
    )

    lora_spread: Annotated[float, Widget(since=8, step=0.05, advanced=True)] = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Draws a third of the candidates with your LoRA this share weaker, and a third this share "
        "stronger. 0.3: at 1, 0.7 and 1.3 times the loaded strength. Needs a LoRA on the model. 0: off.",
    )
    base_candidates: Annotated[int, Widget(since=9, advanced=True)] = Field(
        0,
        ge=0,
        le=255,
        description="How many of each prompt's candidates are drawn by the base model, with your LoRA off: they follow "
        "the prompt and lack the likeness. Needs a LoRA on the model. 0: off. Unit: images.",
    )
    photo_candidates: Annotated[bool, Widget(since=10, advanced=True)] = Field(
        False,
        description="Adds the prompt 'a photo of a <subject>' in training, with the reference photos among its "
        "candidates. Teaches likeness, and the photos' background too.",
    )

    candidate_steps: Annotated[int, Widget(since=12, advanced=True)] = Field(
        0,
        ge=0,
        le=1000,
        description="Sampler steps of candidates, where they differ from those of held-out pictures, which take "
        "`steps`. Fewer make a run cheaper: with a LoRA for few steps (candidate_lora) 4 to 8. 0: as `steps`. Unit: "
        "steps.",
    )
    candidate_guidance: Annotated[
        float | None, Widget("candidate_cfg", since=12, off=0, least=0, step=0.1, advanced=True)
    ] = Field(
        None,
        ge=1.0,
        le=30.0,
        description="Guidance scale of candidates, where it differs from that of held-out pictures; LoRAs for few "
        "steps want 1. Empty, or 0 on the node: as for held-out pictures.",
    )

    earlier_rounds: Annotated[int, Widget(since=14, most=50, advanced=True)] = Field(
        0,
        ge=0,
        le=1000,
        description="Candidates of this many rounds before join each prompt's fresh ones, unchanged. They cost no "
        "drawing, so fewer fresh ones do. 0: every round learns from fresh candidates alone. Unit: rounds.",
    )

    def of_held_out(self) -> SamplingSettings:
        """How held-out pictures are drawn: without what concerns candidates alone."""
        return self.model_copy(update={"candidate_steps": 0, "candidate_guidance": None, "earlier_rounds": 0})

    def of_candidates(self) -> SamplingSettings:
        """How candidates are drawn: with `candidate_steps` and `candidate_guidance` in the place of the usual ones."""
        guidance = self.guidance if self.candidate_guidance is None else self.candidate_guidance
        return self.of_held_out().model_copy(update={"steps": self.candidate_steps or self.steps, "guidance": guidance})

    def strengths(self, per_prompt: int) -> list[float]:
        """Strength of the user's LoRA for each of `per_prompt` candidates, as a multiple of the loaded one."""
        spread = (1.0, 1.0 - self.lora_spread, 1.0 + self.lora_spread)
        drawn = per_prompt - self.base_candidates
        return [round(spread[i % 3], 6) for i in range(drawn)] + [0.0] * self.base_candidates

    @property
    def guided_steps(self) -> int:
        """Steps, from the first, that run the unprompted forward too. Unit: steps."""
        return round(self.guidance_until * self.steps) if self.guidance > 1 else 0

    @property
    def chunk_size(self) -> int:
        """Pictures that are planned and committed together. Unit: images."""
        return self.batch_size or AUTO_CHUNK

    @model_validator(mode="after")
    def _drafts_are_quick(self) -> SamplingSettings:
        name, full = ("candidate_steps", self.candidate_steps) if self.candidate_steps else ("steps", self.steps)
        if full is not None and self.draft_steps >= full:
            raise ValueError(
                f"draft_steps {self.draft_steps} must be below {name} {full}; a third of them is usual, 0 is off"
            )
        return self

    @model_validator(mode="after")
    def _drafts_are_fresh(self) -> SamplingSettings:
        if self.draft_steps and self.earlier_rounds:
            raise ValueError(
                f"earlier_rounds {self.earlier_rounds} does not go with draft_steps {self.draft_steps}: only fresh "
                "candidates have drafts. Set one of them to 0"
            )
        return self

    @model_validator(mode="after")
    def _base_leaves_some(self) -> SamplingSettings:
        if self.base_candidates >= self.candidates_per_prompt:
            raise ValueError(
                f"base_candidates {self.base_candidates} must be below candidates_per_prompt "
                f"{self.candidates_per_prompt}; a quarter of them is plenty, 0 is off"
            )
        return self

    def described(self) -> dict[str, Any]:
        """As JSON, to recognise what was drawn with equal settings.

        Settings that came later are in it only where they are not off, so that older sets are recognised.
        """
        unset = {name for name, off in _LATER if getattr(self, name) == off}
        return self.model_dump(mode="json", exclude=unset)
