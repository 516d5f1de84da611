"""Every setting once: name, default, unit, range and source. YAML files, nodes and docs take them from here."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

AUTO_CHUNK = 16
"""Pictures committed together where free memory decides how many are drawn at once: a set must be planned alike on any
machine.
"""


class Settings(BaseModel):
    """Frozen; unknown fields are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SamplingSettings(Settings):
    """How candidates are drawn."""

    candidates_per_prompt: int = Field(
        8, ge=2, le=256, description="Candidates per prompt and round. At least 2, or no pair exists. Unit: images."
    )
    steps: int = Field(16, ge=1, le=1000, description="Sampler steps (DPM-Solver++ 2M). Unit: steps.")
    guidance: float = Field(
        4.0, ge=1.0, le=30.0, description="Classifier-free guidance scale (arXiv 2207.12598); 1 = off."
    )
    guidance_until: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="Share of the steps, from the first, with guidance (arXiv 2404.07724); a later step costs half.",
    )
    draft_steps: int = Field(
        0,
        ge=0,
        le=1000,
        description="Candidates are first drafted in so many steps; only those in pairs of their drafts are drawn in full. Fewer than "
        "steps, a third of them is usual; 0: no drafts, all are drawn in full. Unit: steps.",
    )
    width: int = Field(512, ge=64, le=4096, multiple_of=8, description="Picture width. Unit: pixels.")
    height: int = Field(512, ge=64, le=4096, multiple_of=8, description="Picture height. Unit: pixels.")
    batch_size: int = Field(
        8,
        ge=0,
        le=1024,
        description=f"Pictures sampled at once; halved by itself when memory runs out. 0: as many as free memory holds, of {AUTO_CHUNK} "
        "that are kept together. Unit: images.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Every candidate's noise seed is derived from it.")

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
        if self.draft_steps >= self.steps:
            raise ValueError(
                f"draft_steps {self.draft_steps} must be below steps {self.steps}; a third of them is usual, 0 is off"
            )
        return self

    def described(self) -> dict[str, Any]:
        """As JSON, to recognise what was drawn with equal settings; younger settings stand in it only where they are
        set.
        """
        unset = {name for name, off in (("guidance_until", 1), ("draft_steps", 0)) if getattr(self, name) == off}
        return self.model_dump(mode="json", exclude=unset)


class PairSettings(Settings):
    """Which two candidates of a prompt become a better/worse pair (arXiv 2505.20975, section 3)."""

    rule: Literal["angle_window", "pareto", "lambda_harmonic", "weighted_sum", "random"] = Field(
        "lambda_harmonic",
        description="Pair rule: improvements inside the angle window; first over last Pareto front (arXiv 2502.02588); lambda-harmonic "
        "reward of two cosines (arXiv 2407.12164), which raised the truth most in the toybox; weighted sum of both scores; random (a "
        "control).",
    )
    window: Literal["fixed", "auto"] = Field(
        "fixed",
        description="Rule angle_window: angle_low to angle_high, or auto, chosen each round by steer and min_pairs.",
    )
    steer: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Where an auto window points: 0 = fidelity (10 degrees), 0.5 = both (45), 1 = alignment (80).",
    )
    angle_low: float = Field(
        20.0,
        ge=-90.0,
        le=180.0,
        description="Smallest angle; 0 = pure fidelity gain, 90 = pure alignment gain. Unit: degrees.",
    )
    angle_high: float = Field(
        70.0, ge=-90.0, le=180.0, description="Largest angle. The paper's run is 20..70. Unit: degrees."
    )
    margin: float = Field(
        0.5,
        ge=0.0,
        le=10.0,
        description="Smallest improvement, length of the difference. Unit: standard deviations of the round.",
    )
    max_pairs_per_prompt: int = Field(
        4, ge=1, le=10000, description="Most pairs of one prompt; the longest are kept. Unit: pairs."
    )
    max_uses: int = Field(2, ge=1, le=10000, description="How often one candidate may stand in pairs of a round.")
    min_pairs: int = Field(
        48,
        ge=0,
        le=1_000_000,
        description="Pairs wanted in a round: an auto window widens up to them, below them a warning is given.",
    )
    fidelity_weight: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Rules lambda_harmonic (its lambda) and weighted_sum: fidelity's share; alignment has the rest.",
    )
    combine: Literal["mean", "worst"] = Field(
        "worst",
        description="Several scorers on an axis: the worst of their scores, each in standard deviations of the round, or the mean of them.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Rule random: order and direction of pairs are derived from it.")

    @model_validator(mode="after")
    def _ordered(self) -> PairSettings:
        if self.angle_low >= self.angle_high:
            raise ValueError(
                f"angle_low {self.angle_low} must be below angle_high {self.angle_high}; the paper's window is 20..70"
            )
        return self


class AdapterSettings(Settings):
    """The trained low-rank weights (LoRA, arXiv 2106.09685)."""

    rank: int = Field(8, ge=1, le=512, description="Rank of every adapted layer.")
    alpha: float = Field(8.0, gt=0.0, le=1024.0, description="The adapter's output is scaled by alpha / rank.")
    targets: Literal["attention", "attention+ff", "all"] = Field(
        "all",
        description="Layers: attention projections; also feed-forward and proj; or every linear and convolution layer inside the blocks.",
    )


class TrainSettings(Settings):
    """One round of training on pairs, by Diffusion-DPO (arXiv 2311.12908) or another objective."""

    steps: int = Field(60, ge=1, le=1_000_000, description="Optimizer steps per round.")
    batch_size: int = Field(8, ge=1, le=1024, description="Pairs in one forward. Unit: pairs.")
    accumulation: int = Field(1, ge=1, le=1024, description="Forwards per optimizer step.")
    learning_rate: float = Field(
        2e-4, gt=0.0, le=1.0, description="AdamW's, after warm-up. About 2e-4 for small models, 2e-5 for SDXL."
    )
    schedule: Literal["constant", "linear"] = Field(
        "linear",
        description="Learning rate after warm-up: falling linearly to 0 at the end of each round, or constant.",
    )
    warmup_steps: int = Field(
        5, ge=0, le=100_000, description="Steps over which the learning rate rises linearly from 0."
    )
    weight_decay: float = Field(0.0, ge=0.0, le=1.0, description="AdamW's.")
    max_grad_norm: float = Field(1.0, gt=0.0, le=1e6, description="Gradients are clipped to this norm.")
    objective: Literal["dpo", "ipo", "hinge", "reward_gap", "mapo", "kto", "raft"] = Field(
        "dpo",
        description="The loss. Its beta for eps models: dpo 2000-5000, ipo 500, hinge 1000-2000, reward_gap 2000, kto 2000-5000, mapo 0.1 "
        "(it weighs the margin; its authors' code says 0.5); raft has none.",
    )
    beta: float = Field(
        2000.0,
        gt=0.0,
        le=1e6,
        description="DPO's beta, for squared errors averaged over the latent's elements: 2000-5000 for eps models, about 100 for flow. "
        "Other objectives want other betas: see objective.",
    )
    loser_guard: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Share of the winner's push that a loser's push must leave (mu of Diffusion-SDPO, arXiv 2511.03317: 0.6-0.9); empty: "
        "off.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="Type of the forward and of frozen weights; the adapter stays fp32."
    )
    memory: Literal["auto", "fast", "checkpointing", "low"] = Field(
        "auto",
        description="What a step gives up for memory; gradients are the same. fast: nothing. checkpointing: each block is recomputed in "
        "the backward pass, about a third slower. low: each transformer layer, one pair after another. auto: fast, and where a step runs "
        "out of memory the next, without a loss.",
    )
    reference_bank: int = Field(
        0,
        ge=0,
        le=1000,
        description="Fixed draws of time and noise per pair, whose reference errors are computed once before the steps; 0: fresh draws and "
        "a reference forward in every step. Quicker where a pair is visited more often than this.",
    )
    compile: bool = Field(
        False,
        description="Compile the denoiser by torch.compile: minutes of waiting once, quicker steps. With memory auto or fast.",
    )
    log_every: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Steps between looks at the numbers: records, progress, and the stops for NaN and winner error come this many steps at "
        "once. Above 1 a GPU need not wait for them. Nothing is saved unseen.",
    )
    checkpoint_every: int = Field(
        10, ge=1, le=100_000, description="Steps between checkpoints; a killed training loses at most these."
    )
    winner_error_warning: float = Field(
        0.01,
        gt=0.0,
        le=10.0,
        description="Warn when the winner's error exceeds the reference's by this, mean of 20 steps. Measured on the toybox.",
    )
    winner_error_collapse: float = Field(
        0.04, gt=0.0, le=10.0, description="Stop there and keep the last good adapter. Measured on the toybox."
    )

    @model_validator(mode="before")
    @classmethod
    def _former_name(cls, given: Any) -> Any:
        """Runs from before there were levels said gradient_checkpointing, true or false."""
        if isinstance(given, dict) and isinstance(given.get("gradient_checkpointing"), bool):
            given = dict(given)
            if given.pop("gradient_checkpointing"):
                given.setdefault("memory", "checkpointing")
        return given

    @model_validator(mode="after")
    def _compiled_plainly(self) -> TrainSettings:
        if self.compile and self.memory not in ("auto", "fast"):
            raise ValueError(
                f"compile does not go with memory {self.memory}: one is for speed, the other for memory; turn compile off"
            )
        return self


class EvaluationSettings(Settings):
    """Held-out prompts with the same seeds before and after."""

    seeds_per_prompt: int = Field(6, ge=1, le=1000, description="Pictures per held-out prompt. Unit: images.")
    guidance: float | None = Field(None, ge=1.0, le=30.0, description="Guidance scale; empty: that of the candidates.")
    every_round: bool = Field(True, description="Evaluate after every round; false: only the start and the end.")
    bootstrap: int = Field(2000, ge=100, le=100_000, description="Resamples of the bootstrap over prompts.")
    seed: int = Field(
        1_000_003,
        ge=0,
        lt=2**31,
        description="Seeds of evaluation pictures derive from it, apart from those of candidates.",
    )


class StopSettings(Settings):
    """Which round is kept, and when the loop ends: judged on held-out prompts after every round."""

    rule: Literal["best", "last"] = Field(
        "best",
        description="best: keep the round whose gain has the highest lower bound, the original if none is above 0, and stop when another "
        "is of no use; last: all rounds, the last is kept.",
    )
    patience: int = Field(
        3, ge=1, le=1000, description="Rounds in a row without more gain before the loop ends. Unit: rounds."
    )
    judge_share: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="The judge's share in the gain, where there is a judge; the scorers that train have the rest.",
    )
    copy_paste_rise: float = Field(
        0.1,
        ge=0.0,
        le=2.0,
        description="A round whose copy-paste has risen by more than this (lower bound) is not kept.",
    )
    diversity_loss: float = Field(
        0.85,
        gt=0.0,
        le=1.0,
        description="A round that has lost more than this share of the diversity above 1 (lower bound) is not kept. Wrong pictures are "
        "diverse, too, so much of it goes in every good run; all of it goes when every seed gives one picture.",
    )


class StrengthSettings(Settings):
    """The strength dial: the LoRA at several strengths, measured on held-out prompts against the model without it."""

    strengths: tuple[float, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
        max_length=50,
        description="Strengths to draw with, 0 to 4, two decimals at most; 0, the original, is always among them.",
    )
    seeds_per_prompt: int | None = Field(
        None,
        ge=2,
        le=1000,
        description="Pictures per held-out prompt and strength; empty: evaluation's, 2 at least. Unit: images.",
    )

    @field_validator("strengths")
    @classmethod
    def _rising(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        """Rising, each once, with 0."""
        if wrong := [s for s in strengths if not 0 <= s <= 4]:
            raise ValueError(f"strength {wrong[0]:g} is outside 0 to 4; a LoRA is mostly used at 0.5 to 1.5")
        if wrong := [s for s in strengths if not math.isclose(s, round(s, 2), abs_tol=1e-9)]:
            raise ValueError(f"strength {wrong[0]!r} has more than two decimals; {wrong[0]:.2f} is near enough")
        if not any(strengths):
            raise ValueError(
                "no strength is above 0, so there is nothing to compare with the original; give some, such as 0.5, 1"
            )
        return tuple(sorted({0.0, *(round(s, 2) for s in strengths)}))


class PersonalizeSettings(Settings):
    """DreamBooth by LoRA (arXiv 2208.12242), without prior loss: the step before, and the curve to beat."""

    steps: int = Field(240, ge=1, le=100_000, description="Optimizer steps of the start.")
    batch_size: int = Field(8, ge=1, le=256, description="Pictures per step.")
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0, description="AdamW's.")
    rank: int = Field(8, ge=1, le=512, description="Rank of the DreamBooth LoRA.")
    curve: tuple[int, ...] = Field(
        (0, 60, 120, 240), description="Steps at which the trade-off curve is measured; may go beyond the start."
    )
    min_fidelity_gain: float = Field(
        0.6,
        ge=0.0,
        le=1.0,
        description="Under-fitted start: the rise of fidelity as a share of the way to held-out photos; below it training goes on.",
    )
    max_steps: int = Field(480, ge=1, le=100_000, description="Where training on an under-fitted start ends.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of initial weights and draws.")


class LoopSettings(Settings):
    """All that shapes the loop."""

    rounds: int = Field(
        3, ge=1, le=1000, description="Most rounds of sample, score, pair, train; the stop rule may end them sooner."
    )
    sampling: SamplingSettings = SamplingSettings()
    pairs: PairSettings = PairSettings()
    adapter: AdapterSettings = AdapterSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    stop: StopSettings = StopSettings()
    sweep: bool = Field(
        False, description="At the end, try the LoRA at several strengths and recommend one: see strength."
    )
    strength: StrengthSettings = StrengthSettings()
