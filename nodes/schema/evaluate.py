"""Evaluate Before/After: compares two models on held-out prompts with the same seeds."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..sockets import CATEGORY, found_by, shown_again
from .inputs import picture_inputs, quality_input, scoring_inputs


class Evaluate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_Evaluate",
            display_name="Evaluate Before/After",
            category=CATEGORY,
            description="Did it get better? Compares two models on held-out prompts with the same seeds: gains with "
            "95 % intervals over prompts, and guards.",
            **found_by("compare", "measure", "slider"),
            **shown_again(),
            inputs=[
                io.Model.Input("before", tooltip="The model before training."),
                io.Model.Input("after", tooltip="The trained model."),
                io.Clip.Input("clip", tooltip="The text encoder of both models."),
                io.Vae.Input("vae", tooltip="The VAE of both models."),
                *scoring_inputs("its scores are independent evidence."),
                *picture_inputs(least=1),
                quality_input(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="before_after",
                    tooltip="Before and after side by side, for some prompts and seeds, chosen without looking at "
                    "scores.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The verdict in one line, then each score with its gain and interval.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, before, after, clip, vae, candidates, scorer, seeds_per_prompt, seed, judge=None, quality=None
    ) -> io.NodeOutput:
        from ..host.runs import NodeProgress, to_image
        from ..stages.evaluate import evaluate

        settings = candidates.settings.model_copy(update={"seed": seed})
        progress = NodeProgress(cls.hidden.unique_id, pictures=False)
        scorers, models = (scorer, judge, quality), (before, after)
        found = evaluate(models, clip, vae, candidates, settings, scorers, seeds_per_prompt, progress)
        image = to_image([found.grid])
        shown = {
            **ui.PreviewImage(image, cls=cls).as_dict(),
            "text": (found.report,),
            "dbdpo_compare": (found.compare,),
        }
        return io.NodeOutput(image, found.report, ui=shown)


NODES = [Evaluate]
