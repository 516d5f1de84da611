"""Prompt Set: what is trained on, and what is only evaluated on."""

from __future__ import annotations

from comfy_api.latest import io

from ..sockets import CATEGORY, ConceptType, PromptsType, found_by


class PromptSetNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ...dpo_core.presets import PRESETS

        return io.Schema(
            node_id="DBDPO_PromptSet",
            display_name="Prompt Set",
            category=CATEGORY,
            description="Prompts in two halves: one is trained on, the other only measured on.",
            **found_by("prompt list", "held-out prompts"),
            inputs=[
                ConceptType.Input("concept", tooltip="Its names take the placeholders' places."),
                io.Combo.Input(
                    "preset",
                    options=[*PRESETS, "own text"],
                    default="objects",
                    tooltip="25 prompts of a kind, or your own.",
                ),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    tooltip="For 'own text': a prompt a line with {identifier} {class_noun}; '[context] prompt' names its context.",
                ),
                io.String.Input(
                    "held_out_text",
                    default="",
                    multiline=True,
                    tooltip="Prompts to measure on; empty: a share of the prompts is split off.",
                ),
                io.Float.Input(
                    "held_out_share",
                    default=0.4,
                    min=0.1,
                    max=0.8,
                    step=0.05,
                    tooltip="Share that is split off to measure on.",
                ),
                io.Int.Input(
                    "seed",
                    control_after_generate=False,
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    tooltip="Which prompts are split off.",
                ),
            ],
            outputs=[
                PromptsType.Output(display_name="prompts", tooltip="Both lists, for Sample Candidates and DPO Rounds."),
                io.String.Output(display_name="listing", tooltip="The same as text, to look at."),
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
