"""Load Toybox: tiny demo models with photos and prompts; training them takes minutes on a CPU."""

from __future__ import annotations

from comfy_api.latest import io

from ...toybox.defaults import EPOCH_STEPS, EPOCHS
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


class ToyboxEpochs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_ToyboxEpochs",
            display_name="Toybox Epochs",
            category=CATEGORY,
            description="Trains one DreamBooth LoRA of a toybox subject and saves it at several points, from briefly "
            "trained to overtrained, for Compare LoRAs.",
            **found_by("demo", "checkpoints", "example lora"),
            inputs=[
                io.Model.Input("model", tooltip="From Load Toybox, with personalized off."),
                io.Clip.Input("clip", tooltip="From Load Toybox."),
                io.Vae.Input("vae", tooltip="From Load Toybox."),
                io.Int.Input(
                    "concept", default=0, min=0, max=99_999, tooltip="Number of the subject, as on Load Toybox."
                ),
                io.Int.Input(
                    "steps", default=EPOCH_STEPS, min=1, max=2000, tooltip="Training steps of the last epoch."
                ),
                io.Int.Input(
                    "epochs", default=EPOCHS, min=1, max=60, tooltip="Number of files, at evenly spaced steps."
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="loras", tooltip="Names of the files, one per line, for loras of Compare LoRAs."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, clip, vae, concept: int, steps: int, epochs: int) -> io.NodeOutput:
        from ...toybox.native_start import native_epochs
        from ..host.lora_files import names_of, saving_folder
        from ..host.runs import NodeProgress

        folder = saving_folder("dreambooth_dpo")
        files = native_epochs((model, clip, vae), concept, steps, epochs, folder, NodeProgress(cls.hidden.unique_id))
        return io.NodeOutput("\n".join(names_of(files)))

    @classmethod
    def fingerprint_inputs(cls, concept: int = 0, **_) -> int:
        from ..host.lora_files import saving_folder

        return len(list(saving_folder("dreambooth_dpo").glob(f"toybox_{concept}-step*.safetensors")))


NODES = [LoadToybox, ToyboxEpochs]
