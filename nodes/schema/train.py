"""DPO LoRA Train Step: one round of preference training."""

from __future__ import annotations

from comfy_api.latest import io

from ...dpo_core.settings import AdapterSettings, TrainSettings
from ..host.early_end import ending_early
from ..sockets import CATEGORY, PairsType, found_by, shown_again
from ..widgets import advanced, ordered
from .sample import round_input

LEARNING = (
    "rank", "alpha", "targets", "train_steps", "pairs_per_step", "accumulation", "learning_rate", "beta",
    "checkpointing", "train_seed", "objective", "loser_guard", "schedule",
)  # fmt: skip
"""The first training widgets, in the order of saved graphs."""


def adapter_inputs() -> list[io.Input]:
    """Training widgets that are not settings of the core: the older checkpointing switch, and the seed."""
    made = [
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
            tooltip="Seed of the initial weights, the order of pairs and the training noise.",
        ),
    ]
    return [advanced(one) for one in made]


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
            description="Trains a LoRA on the pairs by Diffusion-DPO; the incoming model is the reference. "
            "The incoming MODEL is not changed.",
            **found_by("diffusion dpo", "train lora", "preference training", "fine-tune"),
            **shown_again(),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model that drew the candidates. If it carries an adapter, training continues from it.",
                ),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                PairsType.Input("pairs", tooltip="The pairs to train on."),
                *training_inputs(),
                io.LoraModel.Input(
                    "continue_from",
                    optional=True,
                    tooltip="A LoRA of this node to continue from. The MODEL must not carry it, too.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model with the trained LoRA applied: to evaluate, to sample with, or for the next "
                    "round.",
                ),
                io.LoraModel.Output(
                    display_name="lora", tooltip="The LoRA alone, for Save DPO LoRA. It contains all rounds so far."
                ),
                io.Image.Output(display_name="curves", tooltip="Training curves: loss, accuracy, margin, errors."),
                io.String.Output(
                    display_name="summary",
                    tooltip="Means of the last steps, and why training stopped early, if it did.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @ending_early
    def execute(cls, model, clip, pairs, continue_from=None, **widgets) -> io.NodeOutput:
        from ..host.curve import CurveFeed
        from ..host.runs import NodeProgress, to_image
        from ..stages.train import train_step

        feed = CurveFeed(cls.hidden.unique_id, cls.hidden.extra_pnginfo)
        done = train_step(model, clip, pairs, widgets, continue_from, NodeProgress(cls.hidden.unique_id), feed)
        curves = to_image([done.curves])
        # The node shows its curve by dbdpo_curve; the picture is for the output alone.
        shown = {"text": (done.summary,), "dbdpo_curve": (done.curve,), "dbdpo_auto": (done.settings,)}
        return io.NodeOutput(done.model, done.lora, curves, done.summary, ui=shown)


NODES = [TrainStep]
