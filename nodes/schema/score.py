"""Load Scorer and Score Fidelity/Alignment."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..sockets import CATEGORY, CandidatesType, ScoredType, ScorerType, found_by, shown_again

TOYBOX = ("toybox reward", "toybox judge")


class LoadScorer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..host.scorer_files import scorer_names

        return io.Schema(
            node_id="DBDPO_LoadScorer",
            display_name="Load Scorer",
            category=CATEGORY,
            description="A model that looks at pictures: open_clip (fidelity and alignment) or DINOv2 (fidelity). Nothing is fetched.",
            **found_by("clip score", "dino", "reward model"),
            inputs=[
                io.Combo.Input(
                    "scorer",
                    options=[*TOYBOX, *scorer_names()],
                    tooltip="Folders and files under models/dreambooth_dpo_scorers, or the toybox's own.",
                ),
                io.String.Input(
                    "architecture",
                    default="",
                    tooltip="For a single .safetensors file: its name in open_clip, e.g. ViT-B-32-quickgelu. Empty for folders.",
                ),
                io.Boolean.Input(
                    "augment",
                    default=False,
                    optional=True,
                    tooltip="Look at four views of each picture (flipped, shifted) and take the mean: harder to hack, four times the work.",
                ),
            ],
            outputs=[
                ScorerType.Output(display_name="scorer", tooltip="For Score, Evaluate, Keep Best Round and DPO Rounds.")
            ],
        )

    @classmethod
    def execute(cls, scorer: str, architecture: str, augment: bool | None = None) -> io.NodeOutput:
        from ..host.scorer_files import load_scorer

        return io.NodeOutput(load_scorer(scorer, architecture.strip(), bool(augment)))

    @classmethod
    def validate_inputs(cls, scorer: str = "", architecture: str = "") -> bool | str:
        from ..host.scorer_files import check_scorer

        if scorer is None or architecture is None:  # linked: not known yet
            return True
        return check_scorer(scorer, architecture.strip()) or True


def second_scorer(**more) -> io.Input:
    return ScorerType.Input(
        "scorer_2",
        optional=True,
        tooltip="Another backbone: both must be pleased, see combine of the pairs. DINOv2 adds to fidelity alone.",
        **more,
    )


class ScoreCandidates(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_Score",
            display_name="Score Fidelity/Alignment",
            category=CATEGORY,
            description="Two scores for every candidate: likeness to the photos, and agreement with the prompt.",
            **found_by("clip score", "reward", "likeness"),
            **shown_again(),
            inputs=[
                CandidatesType.Input("candidates", tooltip="What was drawn."),
                ScorerType.Input("scorer", tooltip="An open_clip model: alignment needs a text tower."),
                second_scorer(),
            ],
            outputs=[
                ScoredType.Output(
                    display_name="scored", tooltip="The candidates with their scores, for Build Preference Pairs."
                ),
                io.Image.Output(display_name="cloud", tooltip="All candidates by the first scorer's two scores."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, candidates, scorer, scorer_2=None) -> io.NodeOutput:
        from ...dpo_core.report.plots.cloud import figure_image, scores_figure
        from ..host.runs import NodeProgress, to_image
        from ..stages.score import score_candidates

        scorers = [scorer] if scorer_2 is None else [scorer, scorer_2]
        scored, scores = score_candidates(candidates, scorers, NodeProgress(cls.hidden.unique_id))
        cloud = to_image([figure_image(scores_figure(*scores))])
        return io.NodeOutput(scored, cloud, ui=ui.PreviewImage(cloud, cls=cls))


NODES = [LoadScorer, ScoreCandidates]
