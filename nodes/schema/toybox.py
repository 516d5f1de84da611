"""Load Toybox: a world small enough to run anywhere, with its models and photos."""

from __future__ import annotations

from comfy_api.latest import io

from ..sockets import CATEGORY, found_by


class LoadToybox(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_LoadToybox",
            display_name="Load Toybox",
            category=CATEGORY,
            description="A tiny trained world (64 x 64 pictures) with models, photos and prompts of one concept. Nothing is downloaded.",
            **found_by("demo", "test model", "example model"),
            inputs=[
                io.Int.Input(
                    "concept", default=0, min=0, max=99_999, tooltip="Which subject: each number is another one."
                ),
                io.Boolean.Input(
                    "personalized",
                    default=True,
                    tooltip="Teach the model the subject first, by a DreamBooth LoRA from its five photos (under a minute on a CPU; kept).",
                ),
                io.Int.Input(
                    "steps",
                    default=120,
                    min=1,
                    max=2000,
                    tooltip="DreamBooth steps. More: nearer to the photos, deafer to prompts.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The toy model, with the subject's LoRA on it when personalized is on.",
                ),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder."),
                io.Vae.Output(display_name="vae", tooltip="Its VAE."),
                io.Image.Output(
                    "references",
                    display_name="references",
                    tooltip="Five photos of the subject, all before one background.",
                ),
                io.Image.Output(
                    "held_out",
                    display_name="held_out_photos",
                    tooltip="Five more, before other backgrounds, that the model never saw.",
                ),
                io.Mask.Output("masks", display_name="masks", tooltip="A mask for each reference photo."),
                io.String.Output(
                    "identifier", display_name="identifier", tooltip="The word that names the subject in prompts."
                ),
                io.String.Output("class_noun", display_name="class_noun", tooltip="What it is: robot, bear or bottle."),
                io.String.Output(
                    "prompts",
                    display_name="prompts",
                    tooltip="Training prompts, for text of Prompt Set (preset: own text).",
                ),
                io.String.Output(
                    "held_out_prompts",
                    display_name="held_out_prompts",
                    tooltip="Prompts to measure on, for held_out_text of Prompt Set.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, concept: int, personalized: bool, steps: int) -> io.NodeOutput:
        from ...toybox.native_start import load_native
        from ..host.runs import NodeProgress, run_path

        loaded = load_native(
            concept, steps if personalized else 0, run_path("toybox"), NodeProgress(cls.hidden.unique_id)
        )
        return io.NodeOutput(*loaded)


NODES = [LoadToybox]
