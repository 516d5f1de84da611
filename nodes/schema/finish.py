"""Finish Candidates: draws in full only the drafts that are in pairs."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...dpo_core.settings import SamplingSettings
from ..host.early_end import ending_early
from ..sockets import CATEGORY, CandidatesType, PairsType, found_by, shown_again
from ..widgets import widget


class FinishCandidates(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_FinishCandidates",
            display_name="Finish Candidates",
            category=CATEGORY,
            description="Draws in full only the drafts that are in pairs, each from the draft's own noise. "
            "The other drafts are not drawn again.",
            **found_by("draft", "cost", "speed", "sampler"),
            **shown_again(),
            inputs=[
                io.Model.Input("model", tooltip="The model that drew the drafts."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                PairsType.Input(
                    "pairs", tooltip="Pairs of drafts: candidates sampled in few steps, scored and paired as usual."
                ),
                widget(
                    SamplingSettings,
                    "steps",
                    tooltip="Sampler steps of the finished candidates: your usual number, more than the drafts have; "
                    "0: auto, as usual for the model's family. "
                    "All other sampling settings are those of the drafts.",
                ),
            ],
            outputs=[
                CandidatesType.Output(
                    display_name="candidates", tooltip="The finished candidates. Score and pair them again."
                ),
                io.Image.Output(display_name="preview", tooltip="One picture of each prompt, up to 64, in one image."),
                io.String.Output(display_name="summary", tooltip="How many of the drafts were drawn in full."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @ending_early
    def execute(cls, model, clip, vae, pairs, steps: int) -> io.NodeOutput:
        from ...dpo_core.pairs.build import NoPairs
        from ..host.runs import NodeProgress, tiles, to_image
        from ..stages.finish import finish_candidates
        from ..stages.no_pairs import lacking

        if none := lacking(pairs):
            raise NoPairs(none)
        progress = NodeProgress(cls.hidden.unique_id)
        handle, images, said = finish_candidates(model, clip, vae, pairs, steps or None, progress)
        progress.show(sheet := tiles(images, 64))
        preview = to_image([sheet])
        return io.NodeOutput(handle, preview, said, ui={**ui.PreviewImage(preview, cls=cls).as_dict(), "text": (said,)})


NODES = [FinishCandidates]
