"""Strength Sweep: measures a LoRA at several strengths on held-out prompts and recommends one."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...dpo_core.settings import StrengthSettings
from ..sockets import CATEGORY, found_by, shown_again
from ..widgets import widget
from .inputs import picture_inputs, scoring_inputs


class StrengthSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_Strength",
            display_name="Strength Sweep",
            category=CATEGORY,
            description="Measures the LoRA at several strengths on held-out prompts and recommends one. "
            "Strength 0 is the model without the LoRA.",
            **found_by("lora strength", "strength dial", "weight"),
            **shown_again(),
            inputs=[
                io.Model.Input(
                    "model", tooltip="The original model, before training: the one connected to the first train step."
                ),
                io.LoraModel.Input(
                    "lora", tooltip="The LoRA from DPO LoRA Train Step or DPO Rounds. It is not changed."
                ),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                *scoring_inputs("its scores are independent evidence."),
                widget(StrengthSettings, "strengths"),
                *picture_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="curve",
                    tooltip="Scores and gain by strength, with intervals. A star marks the recommended strength.",
                ),
                io.Image.Output(
                    display_name="strip",
                    tooltip="Some held-out prompts at each strength. Each row is one prompt and one noise.",
                ),
                io.Float.Output(
                    display_name="strength",
                    tooltip="The recommended strength, for strength_model of Load LoRA. 0 if no strength shows a gain.",
                ),
                io.String.Output(
                    display_name="report", tooltip="The recommendation and why, then a line for each strength."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, model, lora, clip, vae, candidates, scorer, strengths, seeds_per_prompt, seed, judge=None
    ) -> io.NodeOutput:
        from ..host.runs import NodeProgress, to_image
        from ..stages.strength import strength_sweep

        settings = candidates.settings.model_copy(update={"seed": seed})
        progress = NodeProgress(cls.hidden.unique_id)
        found = strength_sweep(
            (model, clip, vae), lora, candidates, settings, (scorer, judge), strengths, seeds_per_prompt, progress
        )
        progress.show(found.curve)
        curve, strip = to_image([found.curve]), to_image([found.strip])
        shown = [
            *ui.PreviewImage(curve, cls=cls).as_dict()["images"],
            *ui.PreviewImage(strip, cls=cls).as_dict()["images"],
        ]
        return io.NodeOutput(curve, strip, found.value, found.report, ui={"images": shown, "text": (found.report,)})

    @classmethod
    def validate_inputs(cls, strengths: str = "1") -> bool | str:
        from ...dpo_core.errors import UserError
        from ...dpo_core.evaluation.strength import read_strengths

        try:
            read_strengths("1" if strengths is None else strengths)
        except UserError as wrong:
            return str(wrong)
        return True


NODES = [StrengthSweep]
