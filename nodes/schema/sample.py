"""Sample Candidates: draws several candidates for every training prompt."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...dpo_core.settings import SamplingSettings
from ..host.early_end import ending_early
from ..host.lora_files import lora_names
from ..sockets import AUTO, CATEGORY, NONE, Candidates, CandidatesType, ConceptType, PromptsType, found_by, shown_again
from ..widgets import AUTO_VALUE, advanced, ordered, used_with, widget


def round_input() -> io.Int.Input:
    """Optional: graphs saved before this input existed stay valid and use round 0."""
    tooltip = "Index of the loop's round, 0 = first. It and the seed determine the noise. DPO Rounds sets it."
    made = io.Int.Input("round", optional=True, control_after_generate=False, default=0, min=0, max=49, tooltip=tooltip)
    return advanced(made)


def sampler_inputs() -> list[io.Input]:
    """Widgets that only ComfyUI has: sampler, scheduler and negative prompt."""
    from ...dpo_core.backends.comfyui import host

    usual = "auto: as usual for the model's family."
    sampler = io.Combo.Input(
        "sampler_name",
        options=[AUTO, *host.sampler_names()],
        default=AUTO,
        tooltip=f"The sampler. {usual} Samplers that add no noise while sampling (euler, ddim, dpmpp_2m, uni_pc, ...) "
        "draw the same pictures at any batch size.",
    )
    scheduler = io.Combo.Input(
        "scheduler",
        options=[AUTO, *host.scheduler_names()],
        default=AUTO,
        tooltip=f"The noise schedule: how the noise level falls over the steps. {usual}",
    )
    for made in (sampler, scheduler):
        made.extra_dict = {AUTO_VALUE: AUTO}  # as an attribute: 0.3.64's widgets do not take it as an argument
    negative = io.String.Input("negative", default="", tooltip="Negative prompt. It has no effect at cfg 1.")
    return [advanced(made) for made in (sampler, scheduler, negative)]


DRAWING = (
    "candidates_per_prompt", "seed", "steps", "cfg", "sampler_name", "scheduler", "width", "height", "batch_size",
    "negative",
)  # fmt: skip
"""The first sampling widgets, in the order of saved graphs."""


def candidate_lora_inputs() -> list[io.Input]:
    """The LoRA that is on while candidates are drawn, and its strength."""
    lora = io.Combo.Input(
        "candidate_lora",
        options=[NONE, *lora_names()],
        default=NONE,
        optional=True,
        tooltip="A LoRA that draws in few steps (LCM, Lightning, Hyper, Turbo). It is on while candidates are drawn, "
        "and at no other time: training and held-out pictures are without it. Needs candidate_steps.",
    )
    strength = io.Float.Input(
        "candidate_lora_strength",
        default=1.0,
        min=-4.0,
        max=4.0,
        step=0.05,
        optional=True,
        tooltip="Strength of candidate_lora.",
    )
    return [advanced(lora), used_with(advanced(strength), candidate_lora=["*.safetensors", "*.sft"])]


def sampling_inputs() -> list[io.Input]:
    """All sampling widgets."""
    listed = ordered(
        SamplingSettings,
        beside=[*sampler_inputs(), round_input()],
        order=(*DRAWING, "guidance_until", "round"),
        without=("draft_steps", "earlier_rounds"),
        younger=candidate_lora_inputs(),
        since=11,
    )
    tooltip = (
        "How many rounds before are used again, along `earlier`: 1 is the one linked, 2 that one and the one that "
        "was linked to it. No effect without `earlier`. Unit: rounds."
    )
    return [*listed, widget(SamplingSettings, "earlier_rounds", default=1, min=1, tooltip=tooltip)]


def earlier_input(**more) -> io.Input:
    """Optional: the candidates of the round before, to be used again."""
    return CandidatesType.Input(
        "earlier",
        optional=True,
        tooltip="Candidates of the round before. Those of the same prompts join the fresh ones, unchanged: they cost "
        "no drawing, so fewer fresh ones do. They must be of the same run and size.",
        **more,
    )


class SampleCandidates(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_SampleCandidates",
            display_name="Sample Candidates",
            category=CATEGORY,
            description="Draws candidates for every training prompt into a run folder. "
            "If interrupted, it continues where it stopped.",
            **found_by("sampler", "draw candidates", "batch"),
            **shown_again(),
            inputs=[
                io.Model.Input(
                    "model", tooltip="The personalized model. It may carry the adapter of an earlier round."
                ),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                ConceptType.Input("concept", tooltip="The subject."),
                PromptsType.Input("prompts", tooltip="The prompts. Candidates are drawn for the training prompts."),
                io.String.Input(
                    "run_name",
                    default="my_run",
                    tooltip="Name of the run's folder under output/dreambooth_dpo, where all results are saved.",
                ),
                *sampling_inputs(),
                earlier_input(),
            ],
            outputs=[
                CandidatesType.Output(
                    display_name="candidates",
                    tooltip="The candidates, for Score Fidelity/Alignment and Evaluate Before/After.",
                ),
                io.Image.Output(display_name="preview", tooltip="One picture of each prompt, up to 64, in one image."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @ending_early
    def execute(cls, model, clip, vae, concept, prompts, run_name, earlier=None, **drawing) -> io.NodeOutput:
        from ..host.families import drawn_with
        from ..host.runs import NodeProgress, run_path, tiles, to_image
        from ..stages.sample import candidate_lora, draw_candidates, sampling_of

        settings, sampler = sampling_of(drawing, earlier)
        number = drawing.get("round") or 0
        handle = Candidates(run_path(run_name), "", concept, prompts, settings, sampler, number, earlier)
        progress = NodeProgress(cls.hidden.unique_id)
        handle, images = draw_candidates(model, clip, vae, handle, progress, candidate_lora(drawing))
        progress.show(sheet := tiles(images, 64))
        preview = to_image([sheet])
        shown = {**ui.PreviewImage(preview, cls=cls).as_dict(), "dbdpo_auto": (drawn_with(handle, model),)}
        return io.NodeOutput(handle, preview, ui=shown)

    @classmethod
    def validate_inputs(cls, run_name: str = "x", candidate_lora: str = NONE, candidate_steps: int = 0) -> bool | str:
        from ..host.lora_files import check_candidate_lora
        from ..host.runs import check_name

        wrong = check_name(run_name) if run_name is not None else None
        return wrong or check_candidate_lora(candidate_lora, candidate_steps) or True

    @classmethod
    def fingerprint_inputs(cls, run_name: str = "", candidate_lora: str = NONE, **_) -> tuple:
        from ..host.lora_files import stamp
        from ..host.runs import generation

        return generation(run_name or ""), stamp(candidate_lora)


NODES = [SampleCandidates]
