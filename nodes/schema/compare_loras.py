"""Compare LoRAs: ranks LoRA files of any tool, such as the epochs of one training, on held-out prompts."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..sockets import CATEGORY, Candidates, ConceptType, ListedType, PromptsType, ScorerType, found_by, shown_again
from .inputs import judge_input, picture_inputs
from .sample import sampling_inputs

_NOT_HERE = (
    "candidates_per_prompt", "seed", "round", "lora_spread", "base_candidates", "photo_candidates", "candidate_lora",
    "candidate_lora_strength", "candidate_steps", "candidate_cfg", "earlier_rounds",
)  # fmt: skip
"""Widgets of Sample Candidates that held-out pictures do not have; their seed is that of the evaluation."""


def _inputs() -> list[io.Input]:
    """The LoRAs, the run's name, and how held-out pictures are drawn."""
    return [
        io.String.Input(
            "loras",
            default="my_subject-*.safetensors",
            multiline=True,
            tooltip="LoRAs to compare, one per line: a name of Load LoRA's list, or a pattern with *. ':0.8' at the "
            "end of a line is the strength. Text after # is ignored.",
        ),
        io.String.Input(
            "run_name",
            default="my_comparison",
            tooltip="Name of the run's folder under output/dreambooth_dpo, where pictures and scores are saved.",
        ),
        *picture_inputs(),
        *(given for given in sampling_inputs() if given.id not in _NOT_HERE),
    ]


def outputs() -> list[io.Output]:
    """Sockets of the results."""
    return [
        ListedType.Output(
            display_name="lora_name",
            tooltip="Name of the best LoRA, for lora_name of Load LoRA. If no LoRA is better: that of the first in "
            "the ranking, with strength 0.",
        ),
        io.Float.Output(
            display_name="strength",
            tooltip="Strength of the best LoRA, for Load LoRA. 0 if no LoRA is better than the model without one.",
        ),
        io.Model.Output(display_name="model", tooltip="The model with the best LoRA applied, or the original model."),
        io.Clip.Output(display_name="clip", tooltip="The text encoder with the best LoRA applied."),
        io.Image.Output(
            display_name="plane",
            tooltip="Fidelity and alignment of each LoRA, with intervals and the Pareto front. Numbers are ranks.",
        ),
        io.Image.Output(
            display_name="sheet",
            tooltip="Some held-out prompts for each LoRA, in the order of rank. Each row is one prompt and one noise.",
        ),
        io.String.Output(
            display_name="report",
            tooltip="Which LoRA is best and which cannot be told apart from it, then a line for each, in the order of "
            "rank.",
        ),
    ]


class CompareLoras(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_CompareLoras",
            display_name="Compare LoRAs",
            category=CATEGORY,
            description="Which epoch, file or strength is best? Ranks LoRAs of any trainer and the model without one "
            "on the same held-out prompts and seeds.",
            **found_by("best epoch", "best checkpoint", "lora ranking", "xy plot"),
            **shown_again(),
            inputs=[
                io.Model.Input("model", tooltip="The model without the LoRAs that are compared. It is not changed."),
                io.Clip.Input("clip", tooltip="Its text encoder. LoRAs that were trained on it too are applied to it."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                ConceptType.Input("concept", tooltip="The subject."),
                PromptsType.Input("prompts", tooltip="The prompts. Only the held-out prompts are drawn."),
                ScorerType.Input("scorer", tooltip="The scorer of fidelity and alignment."),
                judge_input("scores too: its gain counts half, and a LoRA with which its score falls is never best."),
                *_inputs(),
            ],
            outputs=outputs(),
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, model, clip, vae, concept, prompts, scorer, loras, run_name, seeds_per_prompt, judge=None, **drawing
    ) -> io.NodeOutput:
        from ..host.families import drawn_with
        from ..host.runs import NodeProgress, run_path, to_image
        from ..stages.compare_loras import compare_loras
        from ..stages.sample import sampling_of

        handle = Candidates(run_path(run_name), "", concept, prompts, *sampling_of(drawing))
        progress = NodeProgress(cls.hidden.unique_id)
        found = compare_loras((model, clip, vae), loras, handle, (scorer, judge), seeds_per_prompt, progress)
        progress.show(found.plane)
        plane, sheet = to_image([found.plane]), to_image([found.sheet])
        images = [shown for image in (plane, sheet) for shown in ui.PreviewImage(image, cls=cls).as_dict()["images"]]
        shown = {"images": images, "text": (found.report,), "dbdpo_auto": (drawn_with(found.handle, model),)}
        results = found.name, found.strength, found.model, found.clip, plane, sheet, found.report
        return io.NodeOutput(*results, ui=shown)

    @classmethod
    def validate_inputs(cls, loras: str | None = None, run_name: str | None = None) -> bool | str:
        from ..host.lora_files import check_loras
        from ..host.runs import check_name

        wrong = (loras is not None and check_loras(loras)) or (run_name is not None and check_name(run_name))
        return wrong or True

    @classmethod
    def fingerprint_inputs(cls, loras: str | None = None, run_name: str | None = None, **_) -> list:
        from ..host.lora_files import stamps
        from ..host.runs import generation

        return [generation(run_name or ""), *stamps(loras or "")]


NODES = [CompareLoras]
