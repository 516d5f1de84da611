"""Sample Candidates: many pictures for every training prompt."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...dpo_core.settings import SamplingSettings
from ..sockets import CATEGORY, Candidates, CandidatesType, ConceptType, PromptsType, found_by, shown_again
from ..widgets import ordered


def round_input() -> io.Int.Input:
    """Optional, so that graphs from before it was there stay valid; those have the first round's seeds."""
    tooltip = "Index of the loop's round, 0 = first. It and the seed determine the noise. DPO Rounds sets it."
    return io.Int.Input("round", optional=True, control_after_generate=False, default=0, min=0, max=49, tooltip=tooltip)


def sampler_inputs() -> list[io.Input]:
    """What only ComfyUI knows of drawing."""
    from ...dpo_core.backends.comfyui import host

    return [
        io.Combo.Input(
            "sampler_name",
            options=host.sampler_names(),
            default="dpmpp_2m",
            tooltip="The sampler. Samplers that add no noise while sampling (euler, ddim, dpmpp_2m, uni_pc, ...) draw the "
            "same pictures at any batch size.",
        ),
        io.Combo.Input(
            "scheduler", options=host.scheduler_names(), default="karras", tooltip="How noise falls over the steps."
        ),
        io.String.Input("negative", default="", multiline=True, tooltip="Negative prompt. Without effect at cfg 1."),
    ]


DRAWING = (
    "candidates_per_prompt", "seed", "steps", "cfg", "sampler_name", "scheduler", "width", "height", "batch_size",
    "negative",
)  # fmt: skip
"""The first widgets of drawing, in the order of saved graphs."""


def sampling_inputs() -> list[io.Input]:
    """Widgets of how pictures are drawn."""
    beside = [*sampler_inputs(), round_input()]
    return ordered(
        SamplingSettings, beside=beside, order=(*DRAWING, "guidance_until", "round"), without=("draft_steps",)
    )


class SampleCandidates(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_SampleCandidates",
            display_name="Sample Candidates",
            category=CATEGORY,
            description="Draws candidates for every training prompt into a run folder. Stopped at any moment, it goes on where it was.",
            **found_by("sampler", "draw candidates", "batch"),
            **shown_again(),
            inputs=[
                io.Model.Input(
                    "model", tooltip="The personalized model; an adapter of an earlier round may ride on it."
                ),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                ConceptType.Input("concept", tooltip="The subject."),
                PromptsType.Input("prompts", tooltip="Its training prompts are drawn."),
                io.String.Input(
                    "run_name", default="my_run", tooltip="Folder under output/dreambooth_dpo where everything is kept."
                ),
                *sampling_inputs(),
            ],
            outputs=[
                CandidatesType.Output(
                    display_name="candidates", tooltip="The pictures, for Score Fidelity/Alignment and Evaluate."
                ),
                io.Image.Output(display_name="preview", tooltip="One picture of each prompt, up to 64, in one image."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, clip, vae, concept, prompts, run_name, **drawing) -> io.NodeOutput:
        from ..host.runs import NodeProgress, run_path, tiles, to_image
        from ..stages.sample import draw_candidates, sampling_of

        settings, sampler = sampling_of(drawing)
        handle = Candidates(run_path(run_name), "", concept, prompts, settings, sampler, drawing.get("round") or 0)
        progress = NodeProgress(cls.hidden.unique_id)
        handle, images = draw_candidates(model, clip, vae, handle, progress)
        progress.show(sheet := tiles(images, 64))
        preview = to_image([sheet])
        return io.NodeOutput(handle, preview, ui=ui.PreviewImage(preview, cls=cls))

    @classmethod
    def validate_inputs(cls, run_name: str = "x") -> bool | str:
        from ..host.runs import check_name

        return (check_name(run_name) if run_name is not None else None) or True

    @classmethod
    def fingerprint_inputs(cls, run_name: str = "", **_) -> int:
        from ..host.runs import generation

        return generation(run_name or "")


NODES = [SampleCandidates]
