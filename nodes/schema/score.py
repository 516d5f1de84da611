"""Load Scorer and Score Fidelity/Alignment."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..host.early_end import ending_early
from ..sockets import CATEGORY, QUESTIONS, CandidatesType, ScoredType, ScorerType, found_by, shown_again
from ..widgets import advanced, used_with

TOYBOX = ("toybox reward", "toybox judge")


class LoadScorer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..host.scorer_files import scorer_names

        return io.Schema(
            node_id="DBDPO_LoadScorer",
            display_name="Load Scorer",
            category=CATEGORY,
            description="Loads a model that scores pictures: open_clip, CLIP or SigLIP (fidelity and alignment), "
            "DINOv2 (fidelity), or a vision-language model that judges alignment by questions. Nothing is downloaded.",
            **found_by("clip score", "dino", "siglip", "pickscore", "vqa score", "vlm judge", "reward model"),
            inputs=[
                io.Combo.Input(
                    "scorer",
                    options=[*TOYBOX, *scorer_names(), QUESTIONS],
                    tooltip="A folder or file under models/dreambooth_dpo_scorers, a scorer of the toybox, or "
                    "questions to the model at the input clip.",
                ),
                used_with(
                    io.String.Input(
                        "architecture",
                        default="",
                        tooltip="Only for a single .safetensors file: its architecture in open_clip, e.g. "
                        "ViT-B-32-quickgelu. A folder has its own, and this is not used.",
                    ),
                    scorer=["*.safetensors"],
                ),
                advanced(
                    io.Boolean.Input(
                        "augment",
                        default=False,
                        optional=True,
                        tooltip="Score four views of each picture (flipped, shifted) and take the mean. Training can "
                        "exploit the scorer less easily; scoring takes four times as long.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "fidelity",
                        options=["picture", "patches"],
                        default="picture",
                        optional=True,
                        tooltip="What fidelity compares. picture: the whole picture, or its subject where the concept "
                        "has masks. patches: parts of the subject, wherever they are, for photos in several places "
                        "without masks. patches needs a vision transformer (ViT, DINOv2).",
                    )
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=f"Only for {QUESTIONS}: a vision-language model that generates text, such as Qwen3-VL. It "
                    "judges alignment, or is the second reward scorer.",
                ),
            ],
            outputs=[
                ScorerType.Output(
                    display_name="scorer",
                    tooltip="The scorer, for Score Fidelity/Alignment, Evaluate Before/After, Keep Best Round and "
                    "DPO Rounds.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, scorer: str, architecture: str, augment: bool | None = None, fidelity: str | None = None, clip=None
    ) -> io.NodeOutput:
        from ..host.scorer_files import load_scorer

        return io.NodeOutput(load_scorer(scorer, architecture.strip(), bool(augment), fidelity or "picture", clip))

    @classmethod
    def validate_inputs(cls, scorer: str = "") -> bool | str:
        # Of `architecture` execute() tells: ComfyUI repeats a message for every input that is named here.
        from ..host.scorer_files import check_file

        return True if scorer is None else check_file(scorer) or True  # None: linked, not known yet

    @classmethod
    def fingerprint_inputs(cls, scorer: str | None = "", **_) -> list:
        from ..host.scorer_files import stamp

        return stamp(scorer or "")


def second_scorer(**more) -> io.Input:
    """The optional second reward scorer. more: further arguments of its input."""
    return ScorerType.Input(
        "scorer_2",
        optional=True,
        tooltip="A second reward scorer of another backbone. combine of Build Preference Pairs says how both count. "
        "DINOv2 scores fidelity only.",
        **more,
    )


class ScoreCandidates(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_Score",
            display_name="Score Fidelity/Alignment",
            category=CATEGORY,
            description="Gives every candidate two scores: fidelity (likeness to the reference photos) and alignment "
            "(agreement with the prompt).",
            **found_by("clip score", "reward", "likeness"),
            **shown_again(),
            inputs=[
                CandidatesType.Input("candidates", tooltip="The candidates to score."),
                ScorerType.Input(
                    "scorer",
                    tooltip="The reward scorer. It must be an open_clip model: alignment needs a text encoder.",
                ),
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
    @ending_early
    def execute(cls, candidates, scorer, scorer_2=None) -> io.NodeOutput:
        from ...dpo_core.report.plots.cloud import scores_figure
        from ...dpo_core.report.plots.figure import figure_image
        from ...dpo_core.report.plots.theme import theme
        from ..host.runs import NodeProgress, to_image
        from ..stages.score import score_candidates

        scorers = [scorer] if scorer_2 is None else [scorer, scorer_2]
        scored, scores = score_candidates(candidates, scorers, NodeProgress(cls.hidden.unique_id))
        with theme("dark"):
            cloud = to_image([figure_image(scores_figure(*scores))])
        return io.NodeOutput(scored, cloud, ui=ui.PreviewImage(cloud, cls=cls))


NODES = [LoadScorer, ScoreCandidates]
