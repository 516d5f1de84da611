"""Prompt Set: training prompts and held-out prompts."""

from __future__ import annotations

from comfy_api.latest import io

from ..sockets import CATEGORY, ConceptType, PromptsType, found_by
from ..widgets import advanced, used_with


def _own_text(name: str, tooltip: str) -> io.Input:
    """A text of several lines that counts for the preset "own text" alone."""
    return used_with(io.String.Input(name, default="", multiline=True, tooltip=tooltip), preset=["own text"])


class PromptSetNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ...dpo_core.presets import PRESETS

        return io.Schema(
            node_id="DBDPO_PromptSet",
            display_name="Prompt Set",
            category=CATEGORY,
            description="Prompts in two lists: training prompts, and held-out prompts that only measure.",
            **found_by("prompt list", "held-out prompts"),
            inputs=[
                ConceptType.Input(
                    "concept",
                    tooltip="The subject; {identifier} and {class_noun} in prompts are replaced by its names.",
                ),
                io.Combo.Input(
                    "preset",
                    options=[*PRESETS, "own text"],
                    default="objects",
                    tooltip="25 prompts for a kind of subject, or your own text.",
                ),
                _own_text(
                    "text",
                    "For 'own text': one prompt per line, with {identifier} and {class_noun}. "
                    "'[context] prompt' names the context of a prompt.",
                ),
                _own_text(
                    "held_out_text",
                    "Held-out prompts, one per line. Empty: held_out_share of the prompts is held out.",
                ),
                advanced(
                    io.Float.Input(
                        "held_out_share",
                        default=0.4,
                        min=0.1,
                        max=0.8,
                        step=0.05,
                        tooltip="Share of the prompts that is held out if held_out_text is empty.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "seed",
                        control_after_generate=False,
                        default=0,
                        min=0,
                        max=2**31 - 1,
                        tooltip="Seed that selects which prompts are held out.",
                    )
                ),
            ],
            outputs=[
                PromptsType.Output(display_name="prompts", tooltip="Both lists, for Sample Candidates and DPO Rounds."),
                io.String.Output(display_name="listing", tooltip="Both lists as text."),
            ],
        )

    @classmethod
    def execute(
        cls, concept, preset: str, text: str, held_out_text: str, held_out_share: float, seed: int
    ) -> io.NodeOutput:
        from ...dpo_core.presets import prompt_set

        prompts = prompt_set(concept, preset, text, held_out_text, held_out_share, seed)
        listing = "\n".join(["Trained on:", *prompts.train, "", "Held out:", *prompts.held_out])
        return io.NodeOutput(prompts, listing)


NODES = [PromptSetNode]
