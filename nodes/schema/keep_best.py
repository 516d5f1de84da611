"""Keep Best Round: measures a round on held-out prompts, keeps the best model so far, and stops early."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...dpo_core.settings import StopSettings
from ..sockets import CATEGORY, CandidatesType, PairsType, StandingType, found_by, shown_again
from ..widgets import widget
from .inputs import picture_inputs, quality_input, scoring_inputs
from .score import second_scorer

_LAZY = ("after", "lora", "candidates")


def outputs() -> list[io.Output]:
    """Sockets of the results."""
    return [
        io.Model.Output(display_name="model", tooltip="The best model so far, or the original."),
        io.LoraModel.Output(
            display_name="lora",
            tooltip="The LoRA of that model, for Save DPO LoRA. If the original is kept: a LoRA that changes "
            "nothing, or the adapter that the original carries.",
        ),
        StandingType.Output(
            display_name="standing",
            tooltip="The results of all rounds so far, for so_far of the next round's Keep Best Round.",
        ),
        io.Image.Output(
            display_name="curve", tooltip="Gain of each round with its interval. A star marks what is kept."
        ),
        io.String.Output(display_name="report", tooltip="Which round is kept and why, then the scores of each round."),
        CandidatesType.Output(
            display_name="candidates",
            tooltip="Candidates of the last round that ran, for Evaluate Before/After.",
        ),
        io.Image.Output(display_name="training", tooltip="Training curves of the last round that ran."),
    ]


class KeepBest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_KeepBest",
            display_name="Keep Best Round",
            category=CATEGORY,
            description="Measures a round on held-out prompts and keeps the best model so far, or the original. "
            "After early stopping, later rounds do not run.",
            **found_by("early stopping", "best checkpoint"),
            **shown_again(),
            inputs=[
                io.Model.Input("before", tooltip="The original model, before all rounds."),
                io.Model.Input(
                    "after", lazy=True, tooltip="The model after this round. Not computed after early stopping."
                ),
                io.LoraModel.Input("lora", lazy=True, tooltip="The LoRA from the same DPO LoRA Train Step as `after`."),
                io.Clip.Input("clip", tooltip="The text encoder of both models."),
                io.Vae.Input("vae", tooltip="The VAE of both models."),
                *scoring_inputs("its gain counts half.", lazy=True),
                second_scorer(),
                StandingType.Input(
                    "so_far",
                    optional=True,
                    tooltip="`standing` of the previous round's Keep Best Round. Leave empty in the first round.",
                ),
                *picture_inputs(),
                widget(StopSettings, "patience"),
                PairsType.Input(
                    "pairs",
                    lazy=True,
                    optional=True,
                    tooltip="Pairs of this round. If empty and so_far is connected, the loop stops early instead of "
                    "failing.",
                ),
                PairsType.Input(
                    "drafts",
                    lazy=True,
                    optional=True,
                    tooltip="Draft pairs of this round. If empty, the loop stops early instead of failing.",
                ),
                quality_input(),
            ],
            outputs=outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, before, clip, vae, scorer, seeds_per_prompt, seed, patience,
        after=None, lora=None, candidates=None, judge=None, scorer_2=None, so_far=None, pairs=None, drafts=None,
        quality=None,
    ) -> io.NodeOutput:  # fmt: skip
        from ..host.rounds_view import panel
        from ..host.runs import NodeProgress, to_image
        from ..stages.keep_best import ended, keep_best, picture, report, stopped
        from ..stages.no_pairs import lacking

        progress, kept = NodeProgress(cls.hidden.unique_id), so_far
        none = next(filter(None, map(lacking, filter(None, (drafts, pairs)))), None) if so_far else None
        if so_far and not so_far.decision.stop and progress.stopped and after is None:
            kept = stopped(so_far)
        elif so_far and none and not so_far.decision.stop:
            kept = ended(so_far, none)
        elif so_far is None or not so_far.decision.stop:
            scorers = (scorer, scorer_2, judge, quality)
            drawing = (seeds_per_prompt, seed)
            kept = keep_best((before, after), lora, clip, vae, candidates, scorers, drawing, patience, so_far, progress)
        progress.show(curve := picture(kept))
        curve, said = to_image([curve]), report(kept)
        shown = {**ui.PreviewImage(curve, cls=cls).as_dict(), "text": (said,), "dbdpo_kept": (said,)}
        if progress.loop is not None:
            progress.measured(view := panel(kept, said))
            shown["dbdpo_rounds"] = (view,)
        return io.NodeOutput(
            kept.model, kept.lora, kept, curve, said, kept.candidates, to_image([kept.curves]), ui=shown
        )

    @classmethod
    def check_lazy_status(cls, so_far=None, **inputs) -> list[str]:
        """Names of the lazy inputs to compute next: none after the loop has ended, and no training without pairs."""
        from ..host.rounds_run import inner_of
        from ..stages.no_pairs import lacking

        inner = inner_of(getattr(cls.hidden, "unique_id", None))
        if so_far is not None and (so_far.decision.stop or (inner is not None and inner.run.stop)):
            return []
        for name in ("drafts", "pairs") if so_far is not None else ():
            if name not in inputs:
                continue
            if inputs[name] is None:  # connected, but not computed yet
                return [name]
            if lacking(inputs[name]):
                return []
        return [name for name in _LAZY if inputs.get(name) is None]


NODES = [KeepBest]
