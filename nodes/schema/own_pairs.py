"""Add Own Pairs: pairs of pictures that a person made, beside those of the pair rule."""

from __future__ import annotations

from comfy_api.latest import io

from ...dpo_core.settings import OwnPairSettings
from ..host.early_end import ending_early
from ..sockets import CATEGORY, PairsType, found_by, shown_again
from ..widgets import widget


class OwnPairs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_OwnPairs",
            display_name="Add Own Pairs",
            category=CATEGORY,
            description="Adds pairs of pictures that you chose yourself: folders winner and loser, or a CSV. They are "
            "encoded by the VAE and trained on beside the automatic pairs.",
            **found_by("import pairs", "winner", "loser", "preference data set"),
            **shown_again(),
            inputs=[
                PairsType.Input("pairs", tooltip="The automatic pairs, from Build Preference Pairs or Inspect Pairs."),
                io.Model.Input("model", tooltip="The model that is trained; it says how latents are scaled."),
                io.Vae.Input("vae", tooltip="The model's VAE, which encodes your pictures."),
                io.String.Input(
                    "source",
                    default="own_pairs",
                    tooltip="A folder in ComfyUI's input folder that holds the folders winner and loser with equal "
                    "file names (PNG, JPEG, WebP; prompts in .txt files of that name), or a .csv file there with the "
                    "columns prompt, winner, loser.",
                ),
                io.String.Input(
                    "prompt", default="", tooltip="The prompt of pairs that have none of their own, as in training."
                ),
                widget(OwnPairSettings, "weight"),
            ],
            outputs=[
                PairsType.Output(
                    display_name="pairs", tooltip="The automatic pairs together with yours, for DPO LoRA Train Step."
                ),
                io.String.Output(display_name="summary", tooltip="How many of your pairs there are, and their sizes."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @ending_early
    def execute(cls, pairs, model, vae, source: str, prompt: str, weight: float) -> io.NodeOutput:
        from ..host.runs import NodeProgress
        from ..stages.own_pairs import add_own_pairs

        handle, said = add_own_pairs(pairs, model, vae, source, prompt, weight, NodeProgress(cls.hidden.unique_id))
        return io.NodeOutput(handle, said, ui={"text": (said,)})

    @classmethod
    def validate_inputs(cls, source: str = "x") -> bool | str:
        from ...dpo_core.errors import UserError
        from ..stages.own_pairs import source_path

        try:
            source_path("x" if source is None else source)  # None: linked, not known yet
        except UserError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, source: str | None = "", **_) -> list:
        from ..stages.own_pairs import stamp

        return stamp(source or "")


NODES = [OwnPairs]
