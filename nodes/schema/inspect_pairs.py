"""Inspect Pairs: look at the pairs and keep, swap or reject them."""

from __future__ import annotations

from comfy_api.latest import io

from ..sockets import CATEGORY, PairsType, ScorerType, found_by, shown_again


class InspectPairs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_InspectPairs",
            display_name="Inspect Pairs",
            category=CATEGORY,
            description="Look at the pairs and keep, swap or reject them before training. Those closest to the "
            "limits of the pair rule come first.",
            **found_by("review pairs", "overrule", "reject pairs", "thumbs up"),
            **shown_again(),
            inputs=[
                PairsType.Input("pairs", tooltip="Pairs to look at."),
                io.String.Input(
                    "edits",
                    default="",
                    tooltip="Your decisions as JSON. The node's panel writes them and hides this field. Empty: no "
                    "decisions.",
                ),
                ScorerType.Input(
                    "judge",
                    optional=True,
                    tooltip="A scorer that is not used in training. After 20 decisions the node says how often it "
                    "agrees with you, as it does of the reward scorers.",
                ),
            ],
            outputs=[
                PairsType.Output(
                    display_name="pairs", tooltip="The pairs after your decisions, for DPO LoRA Train Step."
                ),
                io.String.Output(
                    display_name="summary",
                    tooltip="How many pairs were kept, swapped and rejected; after "
                    "20 decisions, how often each scorer and the pair rule agree with you.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_output_node=True,
            # The decisions that it offers to restore depend on the node: two on the same pairs must not share a result.
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, pairs, edits: str, judge=None) -> io.NodeOutput:
        from ..host.runs import NodeProgress
        from ..stages.inspect_pairs import inspect_pairs, place_of

        place = place_of(cls.hidden.unique_id, cls.hidden.extra_pnginfo)
        seen = inspect_pairs(pairs, edits, NodeProgress(cls.hidden.unique_id), place, judge)
        return io.NodeOutput(seen.handle, seen.summary, ui={"dbdpo_inspect": (seen.payload,), "text": (seen.summary,)})

    @classmethod
    def validate_inputs(cls, edits: str = "") -> bool | str:
        from ...dpo_core.errors import UserError
        from ...dpo_core.pairs.edits import read_edits

        try:
            read_edits(edits or "")  # None if linked: not known yet
        except UserError as error:
            return str(error)
        return True


NODES = [InspectPairs]
