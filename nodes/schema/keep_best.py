"""Keep Best Round: the round that held-out prompts show to be surest, or the original; and no more rounds when they are
of no use.
"""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...dpo_core.settings import StopSettings
from ..sockets import CATEGORY, CandidatesType, PairsType, StandingType, found_by, shown_again
from ..widgets import widget
from .inputs import picture_inputs, witness_inputs
from .score import second_scorer

_LAZY = ("after", "lora", "candidates")


class KeepBest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_KeepBest",
            display_name="Keep Best Round",
            category=CATEGORY,
            description="Measures a round on held-out prompts and keeps the best so far, or the original. A stop spares all later rounds.",
            **found_by("early stopping", "best checkpoint"),
            **shown_again(),
            inputs=[
                io.Model.Input("before", tooltip="The model as it came, before all rounds."),
                io.Model.Input(
                    "after", lazy=True, tooltip="The model after this round. Not asked for when so_far says stop."
                ),
                io.LoraModel.Input("lora", lazy=True, tooltip="The LoRA of the Train Step that gave `after`."),
                io.Clip.Input("clip", tooltip="Their text encoder."),
                io.Vae.Input("vae", tooltip="Their VAE."),
                *witness_inputs("it has half the say.", lazy=True),
                second_scorer(),
                StandingType.Input(
                    "so_far",
                    optional=True,
                    tooltip="From the Keep Best Round of the round before; empty for the first.",
                ),
                *picture_inputs(),
                widget(StopSettings, "patience"),
                PairsType.Input(
                    "pairs",
                    lazy=True,
                    optional=True,
                    tooltip="This round's pairs: with so_far, a round without any ends well.",
                ),
                PairsType.Input(
                    "drafts",
                    lazy=True,
                    optional=True,
                    tooltip="Draft pairs of this round. If empty, the loop stops early instead of failing.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The best model so far, or the original."),
                io.LoraModel.Output(
                    display_name="lora",
                    tooltip="Its LoRA, for Save DPO LoRA; one that changes nothing when the original is kept.",
                ),
                StandingType.Output(display_name="standing", tooltip="For so_far of the next round's Keep Best Round."),
                io.Image.Output(
                    display_name="curve", tooltip="Each round's gain with its interval; a star marks what is kept."
                ),
                io.String.Output(display_name="report", tooltip="What is kept and why, then each round's scores."),
                CandidatesType.Output(
                    display_name="candidates", tooltip="Those of the last round that ran, for Evaluate."
                ),
                io.Image.Output(display_name="training", tooltip="Training curves of the last round that ran."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, before, clip, vae, scorer, seeds_per_prompt, seed, patience,
        after=None, lora=None, candidates=None, judge=None, scorer_2=None, so_far=None, pairs=None, drafts=None,
    ) -> io.NodeOutput:  # fmt: skip
        from ..host.runs import NodeProgress, to_image
        from ..stages.keep_best import ended, keep_best, picture, report
        from ..stages.no_pairs import lacking

        progress, kept = NodeProgress(cls.hidden.unique_id), so_far
        none = next(filter(None, map(lacking, filter(None, (drafts, pairs)))), None) if so_far else None
        if so_far and none and not so_far.decision.stop:
            kept = ended(so_far, none)
        elif so_far is None or not so_far.decision.stop:
            scorers = (scorer, scorer_2, judge)
            drawing = (seeds_per_prompt, seed)
            kept = keep_best((before, after), lora, clip, vae, candidates, scorers, drawing, patience, so_far, progress)
        progress.show(curve := picture(kept))
        curve, said = to_image([curve]), report(kept)
        shown = {**ui.PreviewImage(curve, cls=cls).as_dict(), "text": (said,), "dbdpo_kept": (said,)}
        return io.NodeOutput(
            kept.model, kept.lora, kept, curve, said, kept.candidates, to_image([kept.curves]), ui=shown
        )

    @classmethod
    def check_lazy_status(cls, so_far=None, **inputs) -> list[str]:
        """Later rounds are drawn and trained when this asks for them: not after a stop, and not trained without pairs."""
        from ..stages.no_pairs import lacking

        if so_far is not None and so_far.decision.stop:
            return []
        for name in ("drafts", "pairs") if so_far is not None else ():
            if name not in inputs:
                continue
            if inputs[name] is None:  # connected, so here as None until it was asked for
                return [name]
            if lacking(inputs[name]):
                return []
        return [name for name in _LAZY if inputs.get(name) is None]


NODES = [KeepBest]
