"""Save DPO LoRA: writes the LoRA as a .safetensors file under models/loras."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...dpo_core.lora_forms import FORMS
from ..sockets import AUTO, CATEGORY, NONE, found_by, shown_again
from ..widgets import advanced


class SaveLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        import folder_paths

        return io.Schema(
            node_id="DBDPO_SaveLora",
            display_name="Save DPO LoRA",
            category=CATEGORY,
            description="Writes the LoRA into models/loras, where Load LoRA finds it. Nothing is overwritten.",
            **found_by("export lora", "save lora"),
            **shown_again(),
            inputs=[
                io.LoraModel.Input("lora", tooltip="The LoRA from DPO LoRA Train Step, DPO Rounds or Keep Best Round."),
                io.String.Input(
                    "filename_prefix",
                    default="dreambooth_dpo/my_subject",
                    tooltip="File name under models/loras, with folders if wanted. A number is added.",
                ),
                advanced(
                    io.Combo.Input(
                        "format",
                        options=list(FORMS),
                        default=FORMS[0],
                        optional=True,
                        tooltip="kohya: for ComfyUI and kohya's tools, and for diffusers where it reads these names. "
                        "diffusers: diffusers' own names; needed for SD 3.5, Lumina 2, Anima, Krea 2 and others.",
                    )
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The MODEL of the train step, or the one before it. If connected, the saved file is loaded "
                    "onto it and compared with the adapter.",
                ),
                advanced(
                    io.Combo.Input(
                        "join_lora",
                        options=[NONE, AUTO, *folder_paths.get_filename_list("loras")],
                        default=NONE,
                        optional=True,
                        tooltip="Writes your LoRA into the same file, at its strength on the MODEL: one file instead "
                        "of two. auto: every LoRA on the MODEL, found in models/loras by its weights. Needs model.",
                    )
                ),
            ],
            outputs=[
                io.String.Output(display_name="lora_name", tooltip="The name under which Load LoRA lists the file.")
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, lora, filename_prefix: str, format=None, model=None, join_lora=None) -> io.NodeOutput:
        from ..stages.save_joined import save

        saved = save(lora, filename_prefix, format, model, join_lora)
        return io.NodeOutput(saved.name, ui=ui.PreviewText(saved.words))

    @classmethod
    def validate_inputs(cls, filename_prefix: str = "x") -> bool | str:
        from ..stages.save import check_prefix

        return (check_prefix(filename_prefix) if filename_prefix is not None else None) or True


NODES = [SaveLora]
