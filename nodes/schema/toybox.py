"""Load Toybox: tiny demo models with photos and prompts; training them takes minutes on a CPU."""

from __future__ import annotations

from comfy_api.latest import io

from ..sockets import CATEGORY, found_by


def outputs() -> list[io.Output]:
    """Sockets of the results."""
    return [
        io.Model.Output(
            display_name="model",
            tooltip="The toy model, with the subject's LoRA on it when personalized is on.",
        ),
        io.Clip.Output(display_name="clip", tooltip="Its text encoder."),
        io.Vae.Output(display_name="vae", tooltip="Its VAE."),
        io.Image.Output(
            "references",
            display_name="references",
            tooltip="Five photos of the subject, all with the same background.",
        ),
        io.Image.Output(
            "held_out",
            display_name="held_out_photos",
            tooltip="Five further photos with other backgrounds, which the model never saw.",
        ),
        io.Mask.Output("masks", display_name="masks", tooltip="A mask for each reference photo."),
        io.String.Output(
            "identifier", display_name="identifier", tooltip="The word that names the subject in prompts."
        ),
        io.String.Output(
            "class_noun", display_name="class_noun", tooltip="The class of the subject: robot, bear or bottle."
        ),
        io.String.Output(
            "prompts",
            display_name="prompts",
            tooltip="Training prompts, for text of Prompt Set (preset: own text).",
        ),
        io.String.Output(
            "held_out_prompts",
            display_name="held_out_prompts",
            tooltip="Held-out prompts, for held_out_text of Prompt Set.",
        ),
    ]


class LoadToybox(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_LoadToybox",
            display_name="Load Toybox",
            category=CATEGORY,
            description="Tiny demo models (64 x 64 pictures) with photos and prompts of one subject. Nothing is "
            "downloaded.",
            **found_by("demo", "test model", "example model"),
            inputs=[
                io.Int.Input(
                    "concept",
                    default=0,
                    min=0,
                    max=99_999,
                    tooltip="Number of the subject. Each number is another subject.",
                ),
                io.Boolean.Input(
                    "personalized",
                    default=True,
                    tooltip="Teach the model the subject first, by a DreamBooth LoRA on its five photos. "
                    "Takes under a minute on a CPU and is saved.",
                ),
                io.Int.Input(
                    "steps",
                    default=120,
                    min=1,
                    max=2000,
                    tooltip="DreamBooth training steps. More steps: closer to the photos, but worse at following "
                    "prompts.",
                ),
            ],
            outputs=outputs(),
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
