"""DPO LoRA Train Step: one round of preference training."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..sockets import CATEGORY, PairsType, found_by, shown_again
from .sample import round_input


def training_inputs() -> list:
    """Widgets of one round of training, with the core's defaults and ranges."""
    return [
        io.Int.Input("rank", default=8, min=1, max=512, tooltip="Rank of the LoRA."),
        io.Float.Input("alpha", default=8, min=0.01, max=1024, step=0.5, tooltip="Its strength is alpha / rank."),
        io.Combo.Input(
            "targets",
            options=["all", "attention+ff", "attention"],
            default="all",
            tooltip="Which layers of the blocks are trained.",
        ),
        io.Int.Input("train_steps", default=60, min=1, max=1_000_000, tooltip="Optimizer steps of this round."),
        io.Int.Input(
            "pairs_per_step", default=8, min=1, max=1024, tooltip="Pairs in one forward; memory grows with it."
        ),
        io.Int.Input(
            "accumulation",
            default=1,
            min=1,
            max=1024,
            tooltip="Forwards per optimizer step: large batches in little memory.",
        ),
        io.Float.Input(
            "learning_rate",
            default=2e-4,
            min=1e-8,
            max=1,
            step=1e-6,
            round=False,
            tooltip="AdamW's. 2e-4 on small models, 2e-5 on SDXL.",
        ),
        io.Float.Input(
            "beta",
            default=2000,
            min=0.1,
            max=1e6,
            step=10,
            tooltip="How close to its reference: 2000-5000 (eps), 100 (flow).",
        ),
        io.Boolean.Input(
            "checkpointing",
            default=False,
            tooltip="Recompute blocks in the backward pass: much less memory, about a third slower. See memory.",
        ),
        io.Int.Input(
            "train_seed",
            control_after_generate=False,
            default=0,
            min=0,
            max=2**31 - 1,
            tooltip="Of initial weights, order and noise.",
        ),
        *_younger_inputs(),
    ]


def _younger_inputs() -> list:
    """Optional, so that graphs from before they were there stay valid; a new one comes last, since saved graphs know
    widgets by order.
    """
    return [
        io.Combo.Input(
            "objective",
            optional=True,
            options=["dpo", "ipo", "hinge", "reward_gap", "mapo", "kto", "raft"],
            default="dpo",
            tooltip="The loss. Set beta to suit: 2000 (dpo, reward_gap, kto), 1000 (hinge), 500 (ipo), 0.1 (mapo); raft has none.",
        ),
        io.Float.Input(
            "loser_guard",
            optional=True,
            default=0,
            min=0,
            max=1,
            step=0.05,
            tooltip="Share of the winner's push that the loser's push must leave; 0 = off, 0.6-0.9 in its paper.",
        ),
        io.Combo.Input(
            "schedule",
            optional=True,
            options=["linear", "constant"],
            default="linear",
            tooltip="Learning rate after warm-up: falling to 0 by the end of the round, or constant (then take half the learning_rate).",
        ),
        io.Combo.Input(
            "memory",
            optional=True,
            options=["auto", "fast", "checkpointing", "low"],
            default="auto",
            tooltip="What a step gives up to fit into memory; the result is the same. auto: nothing, or as much as it turns out to need.",
        ),
        io.Int.Input(
            "reference_bank",
            optional=True,
            default=0,
            min=0,
            max=1000,
            tooltip="Fixed draws of noise per pair, whose reference is computed once; 0 = fresh noise and a reference pass in every step.",
        ),
        round_input(),
    ]


class TrainStep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_TrainStep",
            display_name="DPO LoRA Train Step",
            category=CATEGORY,
            description="Diffusion-DPO of a LoRA on the pairs, against the model as it came in. The MODEL that comes in stays as it was.",
            **found_by("diffusion dpo", "train lora", "preference training", "fine-tune"),
            **shown_again(),
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that drew the candidates. An adapter that rides on it is trained on."
                ),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                PairsType.Input("pairs", tooltip="Better/worse pairs."),
                *training_inputs(),
                io.LoraModel.Input(
                    "continue_from",
                    optional=True,
                    tooltip="A LoRA of this node to go on from; the MODEL must not carry it.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model with the trained LoRA on it: to evaluate, to draw with, or for the next round.",
                ),
                io.LoraModel.Output(
                    display_name="lora", tooltip="The LoRA alone, for Save DPO LoRA; it holds all rounds so far."
                ),
                io.Image.Output(
                    display_name="curves", tooltip="Curves of the training: loss, accuracy, margin, errors."
                ),
                io.String.Output(
                    display_name="summary", tooltip="The last steps in words, and why training stopped, if it did."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, model, clip, pairs, continue_from=None, **widgets) -> io.NodeOutput:
        from ..host.curve import CurveFeed
        from ..host.runs import NodeProgress, to_image
        from ..stages.train import train_step

        feed = CurveFeed(cls.hidden.unique_id, cls.hidden.extra_pnginfo)
        done = train_step(model, clip, pairs, widgets, continue_from, NodeProgress(cls.hidden.unique_id), feed)
        curves = to_image([done.curves])
        shown = {**ui.PreviewImage(curves, cls=cls).as_dict(), "text": (done.summary,), "dbdpo_curve": (done.curve,)}
        return io.NodeOutput(done.model, done.lora, curves, done.summary, ui=shown)


NODES = [TrainStep]
