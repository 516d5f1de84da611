"""Forms of LoRA files, for widgets and the command line."""

from __future__ import annotations

FORMS = ("kohya", "diffusers")
"""kohya: `lora_unet_<layer>.lora_down.weight`, `.lora_up.weight` and `.alpha`. diffusers: PEFT's
`<component>.<layer>.lora_A.weight` and `.lora_B.weight`.
"""
