"""Subject Photos: the photos of a subject from files that a user drops, or from a folder."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...dpo_core.settings import PhotoSettings, settings_of_widgets
from ..sockets import CATEGORY, found_by, shown_again
from ..widgets import widget


def _inputs() -> list[io.Input]:
    from ..stages.subject_photos import FILES_BELOW, folder_options

    return [
        io.Combo.Input(
            "folder",
            options=folder_options(),
            default=FILES_BELOW,
            tooltip="A folder with photos inside ComfyUI's input folder; press R to see new ones. (files below): the "
            "photos are those of files.",
        ),
        io.String.Input(
            "files",
            default="",
            multiline=True,
            tooltip="The photos, one name per line, inside ComfyUI's input folder. Drop photos onto the node, or press "
            "Add photos, and the names are written here. Masks beside photos (a_mask.png, a.mask.png) are read too.",
        ),
        widget(PhotoSettings, "held_out"),
        widget(PhotoSettings, "crop"),
        widget(PhotoSettings, "size"),
    ]


def _outputs() -> list[io.Output]:
    return [
        io.Image.Output(display_name="references", tooltip="The reference photos, for Concept."),
        io.Mask.Output(
            display_name="masks",
            tooltip="Their masks, subject white, for Concept. A photo without one is white where others have theirs; "
            "without any mask there is none.",
        ),
        io.Image.Output(display_name="held_out", tooltip="The held-out photos, for Concept. None if held_out is 0."),
        io.String.Output(display_name="report", tooltip="What was used, masked and skipped, and why."),
    ]


class SubjectPhotos(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DBDPO_SubjectPhotos",
            display_name="Subject Photos",
            category=CATEGORY,
            description="Loads the photos of your subject: drop them onto the node, or choose a folder. Each becomes a "
            "square around the subject, with its mask; the node shows how, and what was skipped.",
            **found_by("load photos", "load images", "load folder", "reference photos", "dreambooth"),
            **shown_again(),
            inputs=_inputs(),
            outputs=_outputs(),
        )

    @classmethod
    def execute(cls, folder: str, files: str, **given) -> io.NodeOutput:
        from ..host.runs import to_image
        from ..stages.subject_photos import read_subject_photos

        made = read_subject_photos(folder, files, settings_of_widgets(PhotoSettings, given))
        shown = ui.PreviewImage(to_image([made.sheet]), cls=cls).as_dict()
        return io.NodeOutput(made.references, made.masks, made.held_out, made.said, ui={**shown, "text": (made.said,)})

    @classmethod
    def validate_inputs(cls, folder: str | None = None, files: str | None = None) -> bool | str:
        from ...dpo_core.errors import UserError
        from ..stages.subject_photos import FILES_BELOW, find_photos

        if folder is None or (files is None and folder == FILES_BELOW):  # linked, not known yet
            return True
        try:
            find_photos(folder, files or "")
        except UserError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = "", files: str | None = "", **_) -> list:
        from ..stages.subject_photos import stamp

        return stamp(folder or "", files or "")


NODES = [SubjectPhotos]
