"""DPO LoRA Train Step: one round of preference training."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...dpo_core.settings import AdapterSettings, TrainSettings
from ..sockets import CATEGORY, PairsType, found_by, shown_again
from ..widgets import ordered
from .sample import round_input

LEARNING = (
    "rank", "alpha", "targets", "train_steps", "pairs_per_step", "accumulation", "learning_rate", "beta",
    "checkpointing", "train_seed", "objective", "loser_guard", "schedule",
)  # fmt: skip
"""The first widgets of training, in the order of saved graphs."""


def adapter_inputs() -> list[io.Input]:
    """Widgets of training that are no settings of the core: an older switch of memory, and the seed."""
    return [
        io.Boolean.Input(
            "checkpointing",
            default=False,
            tooltip="The same as memory: checkpointing. Each block is computed twice: much less memory, about a third "
            "slower.",
        ),
        io.Int.Input(
            "train_seed",
            control_after_generate=False,
            default=0,
            min=0,
            max=2**31 - 1,
            tooltip="Initial weights, the order of pairs and the noise of training are derived from it.",
        ),
    ]


def training_inputs() -> list[io.Input]:
    """Widgets of one round of training."""
    beside = [*adapter_inputs(), round_input()]
    return ordered(
        AdapterSettings, TrainSettings, beside=beside, order=(*LEARNING, "memory", "reference_bank", "round")
    )


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
