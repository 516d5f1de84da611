"""Concept: the subject that the model was personalized to."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..sockets import CATEGORY, ConceptType, found_by, shown_again
from ..widgets import advanced


class ConceptNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_Concept",
            display_name="Concept",
            category=CATEGORY,
            description="Your subject: how prompts name it, and the photos that fidelity is measured against.",
            **found_by("subject", "reference photos", "dreambooth"),
            **shown_again(),
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
                advanced(
                    io.Combo.Input(
                        "mask_shows",
                        options=["auto", "subject", "background"],
                        default="auto",
                        optional=True,
                        tooltip="What is white in the masks. auto: judged by what touches the borders, so masks of "
                        "cut-outs from Load Image (white background) are inverted.",
                    )
                ),
            ],
            outputs=[
                ConceptType.Output(
                    display_name="concept", tooltip="The subject, for Prompt Set, Sample Candidates and DPO Rounds."
                )
            ],
        )

    @classmethod
    def execute(
        cls, identifier: str, class_noun: str, references, held_out=None, masks=None, mask_shows: str | None = None
    ) -> io.NodeOutput:
        from ..host.runs import to_image
        from ..stages.concept import concept_of

        made = concept_of(identifier, class_noun, references, held_out, masks, mask_shows or "auto")
        shown = ui.PreviewImage(to_image(made.shown), cls=cls).as_dict() if made.shown else {}
        return io.NodeOutput(made.concept, ui={**shown, "text": (made.said,)})

    @classmethod
    def validate_inputs(cls, identifier: str = "x", class_noun: str = "x") -> bool | str:
        from ..stages.concept import empty_word

        # The value of a linked input is not known yet and comes as None.
        for name, value in (("identifier", identifier), ("class_noun", class_noun)):
            if value is not None and (wrong := empty_word(name, value)):
                return wrong
        return True


NODES = [ConceptNode]
