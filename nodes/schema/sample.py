"""Sample Candidates: many pictures for every training prompt."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..sockets import CATEGORY, Candidates, CandidatesType, ConceptType, PromptsType, found_by, shown_again


def round_input() -> io.Int.Input:
    """Optional, so that graphs from before it was there stay valid; those have the first round's seeds."""
    tooltip = "Index of the loop's round, 0 = first. It and the seed determine the noise. DPO Rounds sets it."
    return io.Int.Input("round", optional=True, control_after_generate=False, default=0, min=0, max=49, tooltip=tooltip)


def sampling_inputs() -> list:
    """Widgets of how pictures are drawn, with the core's ranges."""
    from ...dpo_core.backends.comfyui import host

    return [
        io.Int.Input(
            "candidates_per_prompt", default=8, min=2, max=256, tooltip="Pictures for every prompt. 8 to 16 are usual."
        ),
        io.Int.Input(
            "seed",
            control_after_generate=False,
            default=0,
            min=0,
            max=2**31 - 1,
            tooltip="Every picture's noise seed is derived from it.",
        ),
        io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampler steps."),
        io.Float.Input("cfg", default=4.0, min=1.0, max=30.0, step=0.1, tooltip="Guidance scale; 1 = off."),
        io.Combo.Input(
            "sampler_name",
            options=host.sampler_names(),
            default="dpmpp_2m",
            tooltip="Samplers without noise of their own (euler, ddim, dpmpp_2m, uni_pc, ...) give the same pictures at any batch size.",
        ),
        io.Combo.Input(
            "scheduler", options=host.scheduler_names(), default="karras", tooltip="How noise falls over the steps."
        ),
        io.Int.Input("width", default=512, min=64, max=4096, step=8, tooltip="Picture width in pixels."),
        io.Int.Input("height", default=512, min=64, max=4096, step=8, tooltip="Picture height in pixels."),
        io.Int.Input(
            "batch_size",
            default=8,
            min=0,
            max=1024,
            tooltip="Pictures drawn at once; 0 = as many as free memory holds. Halved by itself when memory runs out.",
        ),
        io.String.Input("negative", default="", multiline=True, tooltip="Negative prompt; acts from cfg 1 up."),
        # Optional, so that graphs from before it was there stay valid.
        io.Float.Input(
            "guidance_until",
            optional=True,
            default=1,
            min=0,
            max=1,
            step=0.05,
            tooltip="Share of the steps that cfg acts in, from the first; a step after it costs half. 1 = all steps.",
        ),
        round_input(),
    ]


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
