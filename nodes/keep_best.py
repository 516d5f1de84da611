"""Keep Best Round: the round that held-out prompts show to be surest, or the original; and no more rounds when they are of no use."""

from __future__ import annotations

from comfy_api.latest import io, ui

from .score import second_scorer
from .sockets import CATEGORY, CandidatesType, ScorerType, StandingType

_LAZY = ("after", "lora", "candidates")


class KeepBest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_KeepBest",
            display_name="Keep Best Round",
            category=CATEGORY,
            description="Measures a round on held-out prompts and keeps the best so far, or the original. A stop spares all later rounds.",
            inputs=[
                io.Model.Input("before", tooltip="The model as it came, before all rounds."),
                io.Model.Input("after", lazy=True, tooltip="The model after this round. Not asked for when so_far says stop."),
                io.LoraModel.Input("lora", lazy=True, tooltip="The LoRA of the Train Step that gave `after`."),
                io.Clip.Input("clip", tooltip="Their text encoder."),
                io.Vae.Input("vae", tooltip="Their VAE."),
                CandidatesType.Input("candidates", lazy=True, tooltip="Tells concept, held-out prompts, sampler settings and run folder."),
                ScorerType.Input("scorer", tooltip="The scorer that trained."),
                ScorerType.Input("judge", optional=True, tooltip="A scorer of another backbone that never trained: it has half the say."),
                second_scorer(),
                StandingType.Input("so_far", optional=True, tooltip="From the Keep Best Round of the round before; empty for the first."),
                io.Int.Input("seeds_per_prompt", default=6, min=2, max=1000, tooltip="Pictures for every held-out prompt, of each model."),
                io.Int.Input(
                    "seed",
                    control_after_generate=False,
                    default=1_000_003,
                    min=0,
                    max=2**31 - 1,
                    tooltip="Noise seeds derive from it, apart from candidates'.",
                ),
                io.Int.Input("patience", default=3, min=1, max=1000, tooltip="Rounds in a row without more gain before it says stop."),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.LoraModel.Output(display_name="lora"),
                StandingType.Output(display_name="standing"),
                io.Image.Output(display_name="curve"),
                io.String.Output(display_name="report"),
                CandidatesType.Output(display_name="candidates"),
                io.Image.Output(display_name="training"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, before, clip, vae, scorer, seeds_per_prompt, seed, patience,
        after=None, lora=None, candidates=None, judge=None, scorer_2=None, so_far=None,
    ) -> io.NodeOutput:  # fmt: skip
        from .keeping import keep_best, picture, report
        from .run import NodeProgress, to_image

        progress, kept = NodeProgress(cls.hidden.unique_id), so_far
        if so_far is None or not so_far.decision.stop:
            scorers = (scorer, scorer_2, judge)
            drawing = (seeds_per_prompt, seed)
            kept = keep_best((before, after), lora, clip, vae, candidates, scorers, drawing, patience, so_far, progress)
        progress.show(curve := picture(kept))
        curve, said = to_image([curve]), report(kept)
        shown = {**ui.PreviewImage(curve, cls=cls).as_dict(), "text": (said,)}
        return io.NodeOutput(kept.model, kept.lora, kept, curve, said, kept.candidates, to_image([kept.curves]), ui=shown)

    @classmethod
    def check_lazy_status(cls, so_far=None, **inputs) -> list[str]:
        """Later rounds are drawn and trained when this asks for them: not after a stop."""
        return [] if so_far is not None and so_far.decision.stop else [name for name in _LAZY if inputs.get(name) is None]


NODES = [KeepBest]
