"""Save DPO LoRA: writes the LoRA as a .safetensors file under models/loras."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..sockets import CATEGORY, found_by, shown_again


class SaveLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
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
            ],
            outputs=[
                io.String.Output(display_name="lora_name", tooltip="The name under which Load LoRA lists the file.")
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, lora, filename_prefix: str) -> io.NodeOutput:
        from ..stages.save import save_numbered

        name = save_numbered(lora, filename_prefix)
        note = getattr(lora, "note", "")
        return io.NodeOutput(name, ui=ui.PreviewText(f"saved as {name}" + (f": {note}" if note else "")))

    @classmethod
    def validate_inputs(cls, filename_prefix: str = "x") -> bool | str:
        from ..stages.save import check_prefix

        return (check_prefix(filename_prefix) if filename_prefix is not None else None) or True


NODES = [SaveLora]
