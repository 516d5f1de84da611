"""Build Preference Pairs and Preview Pairs."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...dpo_core.settings import PairSettings, settings_of_widgets
from ..host.early_end import ending_early
from ..sockets import CATEGORY, PairsType, ScoredType, found_by, shown_again
from ..widgets import ordered

PAIRING = (
    "angle_low", "angle_high", "margin", "max_pairs_per_prompt", "max_uses", "rule", "window", "steer",
    "fidelity_weight",
)  # fmt: skip
"""The first widgets of the pair rule, in the order of saved graphs."""


class BuildPairs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_BuildPairs",
            display_name="Build Preference Pairs",
            category=CATEGORY,
            description="Pairs better and worse candidates of the same prompt by a rule, such as the angle window. "
            "Changing the rule draws no picture again.",
            **found_by("winner", "loser", "angle window"),
            **shown_again(),
            inputs=[
                ScoredType.Input("scored", tooltip="Scored candidates."),
                *ordered(PairSettings, order=(*PAIRING, "combine")),
            ],
            outputs=[
                PairsType.Output(
                    display_name="pairs", tooltip="The pairs, for DPO LoRA Train Step, Inspect Pairs and Preview Pairs."
                ),
                io.Image.Output(
                    display_name="cloud",
                    tooltip="All candidates by fidelity and alignment, with the angle window and an arrow for each "
                    "pair.",
                ),
                io.String.Output(
                    display_name="summary", tooltip="How many pairs were made, and why others were left out."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @ending_early
    def execute(cls, scored, **widgets) -> io.NodeOutput:
        from ...dpo_core.pairs.advice import pairs_advice
        from ...dpo_core.report.plots.cloud import cloud_figure
        from ...dpo_core.report.plots.figure import figure_image
        from ...dpo_core.report.plots.theme import theme
        from ..host.runs import NodeProgress, to_image
        from ..stages.no_pairs import lacking
        from ..stages.pairs import make_pairs

        settings = settings_of_widgets(PairSettings, widgets)
        made = make_pairs(scored, settings, NodeProgress(cls.hidden.unique_id))
        fidelity, alignment, prompt_of = made.scores
        title = f"{len(made.pairs)} pairs"
        with theme("dark"):
            figure = cloud_figure(fidelity, alignment, made.pairs, settings, title, prompt_of, window=made.found.window)
            cloud = to_image([figure_image(figure)])
        advice = pairs_advice(made.found, settings, scored.candidates.settings.candidates_per_prompt)
        words = " ".join(filter(None, (made.found.sentence(), advice, made.told)))
        said = lacking(made.handle) or words
        return io.NodeOutput(
            made.handle, cloud, said, ui={**ui.PreviewImage(cloud, cls=cls).as_dict(), "text": (said,)}
        )

    @classmethod
    def validate_inputs(cls, angle_low: float = 0, angle_high: float = 1) -> bool | str:
        if angle_low is not None and angle_high is not None and angle_low >= angle_high:
            return f"angle_low {angle_low:g} must be below angle_high {angle_high:g}; the paper's window is 20..70."
        return True


class PreviewPairs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_PreviewPairs",
            display_name="Preview Pairs",
            category=CATEGORY,
            description="Winner and loser side by side, with prompt and scores. "
            "The first page shows as many prompts as it can.",
            **found_by("winner", "loser", "gallery"),
            **shown_again(),
            inputs=[
                PairsType.Input("pairs", tooltip="Pairs to look at."),
                io.Int.Input(
                    "page",
                    default=1,
                    min=1,
                    max=100_000,
                    tooltip="Number of the page. Larger numbers show the last page.",
                ),
                io.Int.Input("pairs_per_page", default=6, min=1, max=40, tooltip="Number of pairs on a page."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="page", tooltip="The page as one picture: winners and losers with their scores."
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, pairs, page: int, pairs_per_page: int) -> io.NodeOutput:
        from ...dpo_core.pairs.build import NoPairs
        from ...dpo_core.report.plots.grids import pairs_grid
        from ...dpo_core.report.plots.theme import theme
        from ..host.runs import to_image
        from ..stages.no_pairs import lacking
        from ..stages.pairs import pair_pictures

        if said := lacking(pairs):
            raise NoPairs(said)
        shown, count = pair_pictures(pairs, (page - 1) * pairs_per_page, pairs_per_page)
        if not shown:
            shown, _ = pair_pictures(pairs, (count - 1) // pairs_per_page * pairs_per_page, pairs_per_page)
        with theme("dark"):
            image = to_image([pairs_grid(shown)])
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


NODES = [BuildPairs, PreviewPairs]
