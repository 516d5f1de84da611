"""Settings of the adapter and of one round of training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Settings, Widget

GROUPED = frozenset({"nft", "awm", "dgpo"})
"""Objectives that train on groups of a prompt's candidates and their rewards, in place of pairs."""
DRIFTING = frozenset({"nft", "awm"})
"""Objectives that need the reference's prediction, not its error alone."""


class AdapterSettings(Settings):
    """The trained low-rank weights (LoRA, arXiv 2106.09685)."""

    rank: Annotated[int | None, Widget(default=0, off=0, least=0, advanced=True)] = Field(
        8,
        ge=1,
        le=512,
        description="Rank of the LoRA. A higher rank can learn more, and makes a larger file. Empty, or 0 on the node: "
        "auto, that of the model's family.",
    )
    alpha: Annotated[float | None, Widget(default=0, off=0, least=0, step=0.5, advanced=True)] = Field(
        8.0,
        gt=0.0,
        le=1024.0,
        description="The LoRA acts with strength alpha / rank. Empty, or 0 on the node: auto, equal to the rank, "
        "which means 1.",
    )
    targets: Annotated[Literal["auto", "all", "attention+ff", "attention"], Widget(default="auto", advanced=True)] = (
        Field(
            "all",
            description="Trained layers. attention: attention projections. attention+ff: feed-forward and projection "
            "layers too. all: every linear and convolution layer inside the model's blocks. auto: those of the model's "
            "family.",
        )
    )


class TrainSettings(Settings):
    """One round of training on pairs, by Diffusion-DPO (arXiv 2311.12908) or another objective."""

    steps: Annotated[int, Widget("train_steps")] = Field(
        60, ge=1, le=1_000_000, description="Optimizer steps per round. Unit: steps."
    )
    batch_size: Annotated[int, Widget("pairs_per_step", advanced=True)] = Field(
        8, ge=1, le=1024, description="Pairs in one forward pass. Memory grows with it. Unit: pairs."
    )
    accumulation: Annotated[int, Widget(advanced=True)] = Field(
        1,
        ge=1,
        le=1024,
        description="Forward passes per optimizer step. Twice as many with half the pairs in each see as many pairs, "
        "in less memory. Unit: passes.",
    )
    learning_rate: Annotated[float | None, Widget(default=0, off=0, least=0, step=1e-6, advanced=True)] = Field(
        2e-4,
        gt=0.0,
        le=1.0,
        description="Learning rate of AdamW after warm-up. Empty, or 0 on the node: auto, that of the model's family "
        "(2e-4 for SD 1.5, 2e-5 for SDXL, 1e-4 for most flow models). Lower it when training stops by itself.",
    )
    schedule: Annotated[Literal["linear", "constant"], Widget(since=2, before="constant", advanced=True)] = Field(
        "linear",
        description="Learning rate after warm-up. linear: falls to 0 by the end of each round. constant: stays, and "
        "goes as far with half the learning rate.",
    )
    warmup_steps: int = Field(
        5, ge=0, le=100_000, description="Steps over which the learning rate rises linearly from 0. Unit: steps."
    )
    weight_decay: float = Field(0.0, ge=0.0, le=1.0, description="Weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0.0, le=1e6, description="Gradients are clipped to this norm.")
    objective: Annotated[
        Literal["dpo", "ipo", "hinge", "reward_gap", "mapo", "kto", "raft", "nft", "awm", "dgpo"],
        Widget(since=1, advanced=True),
    ] = Field(
        "dpo",
        description="The loss. Its beta for eps models: dpo 2000 to 5000, ipo 500, hinge 1000 to 2000, reward_gap "
        "2000, kto 2000 to 5000, mapo 0.1 (it weighs the margin; its authors' code says 0.5); raft has none. nft "
        "(beta 1), awm (beta 1) and dgpo (beta as dpo) train on groups of all candidates, not on pairs.",
    )
    group_size: int = Field(
        4,
        ge=2,
        le=64,
        description="For nft, awm and dgpo: candidates of one prompt in a group. They share time and noise. batch_size "
        "counts groups then. Unit: images.",
    )
    margin_weight: float = Field(
        0.0,
        ge=0.0,
        le=4.0,
        description="Weighs the loss of a pair by its reward gap to this power, with mean 1 over the round. 1: in "
        "proportion to the gap. 0: all pairs alike. For dpo, ipo, hinge, mapo and raft.",
    )
    beta: Annotated[
        float | None,
        Widget(default=0, off=0, least=0, step=10, advanced=True, used_with=(("auto_beta", ("auto", "off")),)),
    ] = Field(
        2000.0,
        gt=0.0,
        le=1e6,
        description="How closely the model stays to its reference: higher is closer. For squared errors averaged over "
        "the latent's elements: 2000 to 5000 for eps models (SD 1.5, SDXL), about 100 for flow models. Empty, or 0 on "
        "the node: auto, that of the model's family, or auto_beta where none is trusted. See objective.",
    )
    auto_beta: Annotated[
        Literal["auto", "on", "off"],
        Widget(since=7, default="auto", before="off", advanced=True, used_with=(("objective", ("dpo",)),)),
    ] = Field(
        "off",
        description="Adapt beta to the pairs' margins, so that pairs keep a fifth of their push (as SimpleTuner's "
        "auto_beta): falls as margins grow. auto: where beta is auto and the model's family has no trusted beta. on: "
        "always; beta is not used. For the objective dpo.",
    )
    beta_floor: float = Field(100.0, gt=0.0, le=1e6, description="Lowest beta of auto_beta: usual for flow models.")
    beta_ceiling: float = Field(
        5000.0,
        gt=0.0,
        le=1e6,
        description="Highest beta of auto_beta, at which each round starts: the highest of arXiv 2311.12908.",
    )
    time_sampling: Annotated[
        Literal["auto", "table", "uniform", "logit_normal"],
        Widget(since=7, default="auto", before="table", advanced=True),
    ] = Field(
        "table",
        description="How the noise levels of training are drawn. table: uniform over the model's own table of levels "
        "(Diffusion-DPO). uniform, logit_normal (arXiv 2403.03206): over 0 to 1, then shifted by time_shift. auto: as "
        "trainers of the model's family do.",
    )
    time_shift: Annotated[
        float | None,
        Widget(
            since=7,
            default=0,
            off=0,
            least=0,
            step=0.1,
            advanced=True,
            used_with=(("time_sampling", ("auto", "uniform", "logit_normal")),),
        ),
    ] = Field(
        None,
        gt=0.0,
        le=100.0,
        description="Moves uniform and logit_normal levels t to more noise: s t / (1 + (s - 1) t) with s above 1. 1: "
        "none. Empty, or 0 on the node: auto, that of the model's family; for some it grows with the picture's size.",
    )
    loser_guard: Annotated[float | None, Widget(since=1, off=0, step=0.05, advanced=True)] = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Share of the winner's push that the loser's push must leave: mu of Diffusion-SDPO (arXiv "
        "2511.03317), 0.6 to 0.9 there. Off: empty, or 0 on the node.",
    )
    ema_decay: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="A round ends with a moving average of the adapter's weights after its steps instead of the last "
        "ones; with each later step, one counts less by this factor (0.9: about the last 10 steps; 1: all alike). "
        "Empty: off.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="Type of the forward pass and of frozen weights; the adapter stays fp32."
    )
    memory: Annotated[Literal["auto", "fast", "checkpointing", "low", "stream"], Widget(since=3, advanced=True)] = (
        Field(
            "auto",
            description="What a step gives up for memory; gradients are the same. fast: nothing. checkpointing: each "
            "block is computed twice, about a third slower. low: each transformer layer, one pair after another. "
            "stream: as low, with the model's weights in main memory, for models larger than the card; slower. auto: "
            "fast, and after running out of memory the next level, from the last good step.",
        )
    )
    reference_bank: Annotated[int, Widget(since=4, advanced=True)] = Field(
        0,
        ge=0,
        le=1000,
        description="Fixed draws of time and noise per pair, whose reference errors are computed once before the "
        "steps. Faster where a pair is visited more often than this, with less variety of noise. 0: fresh noise and a "
        "reference pass in every step. Unit: draws.",
    )
    compile: bool = Field(
        False,
        description="Compile the denoiser by torch.compile: minutes of waiting once, faster steps. With memory auto "
        "or fast.",
    )
    log_every: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Steps between checks of the numbers: records, progress, and the stops for NaN and winner error "
        "come this many steps at once. Above 1 a GPU need not wait for them. Nothing is saved unchecked. Unit: steps.",
    )
    sample_every: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Steps between sample grids: pictures of some held-out prompts with the adapter as it is, in "
        "round_<number>/samples of the run folder. Training gives the same numbers with and without. 0: none. Unit: "
        "steps.",
    )
    sample_prompts: int = Field(
        4,
        ge=1,
        le=64,
        description="Held-out prompts in a sample grid, evenly spaced over the list; of each the first two seeds of "
        "the evaluation. Unit: prompts.",
    )
    checkpoint_every: int = Field(
        10,
        ge=1,
        le=100_000,
        description="Steps between checkpoints; a killed training loses at most these. Unit: steps.",
    )
    winner_error_warning: float = Field(
        0.01,
        gt=0.0,
        le=10.0,
        description="Warn when the winner's error exceeds the reference's by this, mean of 20 steps. Measured on the "
        "toybox.",
    )
    winner_error_collapse: float = Field(
        0.04,
        gt=0.0,
        le=10.0,
        description="Stop there and keep the last good adapter. Measured on the toybox.",
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
    def _fit_together(self) -> TrainSettings:
        if self.compile and self.memory not in ("auto", "fast"):
            raise ValueError(
                f"compile does not go with memory {self.memory}: one is for speed, the other for memory. "
                "Turn compile off."
            )
        if self.beta_floor > self.beta_ceiling:
            raise ValueError(
                f"beta_floor {self.beta_floor:g} must not be above beta_ceiling {self.beta_ceiling:g}; 100 and 5000 "
                "are usual"
            )
        return self

    @model_validator(mode="after")
    def _fits_the_objective(self) -> TrainSettings:
        """Settings that only some objectives have."""
        if self.margin_weight and self.objective in GROUPED | {"reward_gap", "kto"}:
            raise ValueError(
                f"margin_weight {self.margin_weight:g} does not go with objective {self.objective}, which has "
                "rewards of its own or no pairs. Set margin_weight to 0, or take dpo, ipo, hinge, mapo or raft"
            )
        if self.reference_bank and self.objective in DRIFTING:
            raise ValueError(
                f"reference_bank {self.reference_bank} does not go with objective {self.objective}: the bank keeps "
                "the reference's errors, and this objective needs its predictions. Set reference_bank to 0"
            )
        return self

    @property
    def width(self) -> int:
        """Pictures in a row of a batch: 2 of a pair, or `group_size`."""
        return self.group_size if self.objective in GROUPED else 2

    def described(self) -> dict[str, Any]:
        """As JSON, to recognise a round that was trained with equal settings.

        Memory level and sample grids do not count. Settings that came later are in it only where they are not off, so
        that older rounds are recognised.
        """
        unset = {"memory", "sample_every", "sample_prompts", *(["ema_decay"] if self.ema_decay is None else [])}
        if self.auto_beta == "off":
            unset |= {"auto_beta", "beta_floor", "beta_ceiling"}
        if self.time_sampling == "table":
            unset |= {"time_sampling", "time_shift"}
        if self.objective not in GROUPED:
            unset.add("group_size")
        if not self.margin_weight:
            unset.add("margin_weight")
        return self.model_dump(exclude=unset)
