"""Concept: the subject that the model was personalized to."""

from __future__ import annotations

from comfy_api.latest import io

from ..sockets import CATEGORY, ConceptType, found_by


class ConceptNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_Concept",
            display_name="Concept",
            category=CATEGORY,
            description="Your subject: how prompts name it, and the photos that fidelity is measured against.",
            **found_by("subject", "reference photos", "dreambooth"),
            inputs=[
                io.String.Input(
                    "identifier", default="sks", tooltip="The token that names your subject, as in training, e.g. sks."
                ),
                io.String.Input(
                    "class_noun", default="dog", tooltip="What kind of thing it is, e.g. dog, woman, backpack."
                ),
                io.Image.Input("references", tooltip="Three to five photos of the subject."),
                io.Image.Input(
                    "held_out",
                    optional=True,
                    tooltip="Further photos of the subject that training never saw. They show whether training only "
                    "copies.",
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="One mask per reference photo, subject white. Fidelity then compares the subject alone, "
                    "not its background.",
                ),
            ],
            outputs=[
                ConceptType.Output(
                    display_name="concept", tooltip="The subject, for Prompt Set, Sample Candidates and DPO Rounds."
                )
            ],
        )

    @classmethod
    def execute(cls, identifier: str, class_noun: str, references, held_out=None, masks=None) -> io.NodeOutput:
        from ...dpo_core.concept import Concept
        from ..host.runs import to_pixels

        photos = to_pixels(references)
        subject = None if masks is None else (masks.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
        return io.NodeOutput(
            Concept(identifier, class_noun, photos, None if held_out is None else to_pixels(held_out), subject)
        )

    @classmethod
    def validate_inputs(cls, identifier: str = "x", class_noun: str = "x") -> bool | str:
        # The value of a linked input is not known yet and comes as None.
        for name, value in (("identifier", identifier), ("class_noun", class_noun)):
            if value is not None and not value.strip():
                return f"{name} is empty: write a word, such as 'sks' (identifier) or 'dog' (class noun)."
        return True


NODES = [ConceptNode]
