"""Draws with the user's LoRA at another strength, on MODEL and CLIP as ComfyUI's Load LoRA has left them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import host


class UserLoras:
    """The LoRAs that a MODEL and its CLIP carry."""

    patcher: Any
    clip: Any
    _entries: dict[str, Any]

    @property
    def fixed_strength(self) -> str:
        """Why the strength of the MODEL's LoRAs cannot be changed; "" where it can."""
        if host.has_loras(self.patcher):
            return ""
        return "the MODEL carries no LoRA by ComfyUI's Load LoRA whose strength could be changed (nor bypass mode)"

    @contextmanager
    def at_lora_strength(self, factor: float) -> Iterator[None]:
        """Inside, the LoRAs on MODEL and CLIP act at `factor` times their strengths; the live adapter stays as it is.

        Prompts are encoded anew if the CLIP has LoRAs.
        """
        before = self.patcher, self.clip, self._entries
        try:
            self.patcher = host.with_lora_strength(self.patcher, factor)
            if self.clip is not None and host.has_loras(self.clip):
                self.clip, self._entries = host.with_lora_strength(self.clip, factor), {}
            yield
        finally:
            self.patcher, self.clip, self._entries = before
