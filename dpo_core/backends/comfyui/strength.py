"""Draws with the user's LoRA at another strength, on MODEL and CLIP as Load LoRA has left them; or with a LoRA for
candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import host
from .lora_entries import check_lora_file


@dataclass(eq=False)
class _Candidates:
    """A LoRA for candidates; encoder: whether it changes the CLIP. worn: the MODEL and CLIP that carry it, made for
    `plain`, so that the host loads them once.
    """

    tensors: dict[str, Any] = field(repr=False)
    strength: float
    encoder: bool
    plain: Any = None
    worn: tuple[Any, Any] = (None, None)
    entries: dict[str, Any] = field(default_factory=dict)

    def on(self, model: Any, clip: Any) -> tuple[Any, Any]:
        """Clones of the MODEL and the CLIP with the LoRA."""
        if self.plain is not model:
            self.worn = host.with_lora_on_both(model, clip if self.encoder else None, self.tensors, self.strength)
            self.plain, self.entries = model, {}
        return self.worn


class UserLoras:
    """The LoRAs that a MODEL and its CLIP carry."""

    patcher: Any
    clip: Any
    _entries: dict[str, Any]
    _candidates: _Candidates | None = None

    def set_candidate_lora(self, path: Path, strength: float) -> None:
        """Name a LoRA file that acts inside `for_candidates` alone, such as one that draws in few steps.

        Raises UserError as `check_lora_file`.
        """
        encoder = check_lora_file(self.patcher, self.clip, path)
        self._candidates = _Candidates(host.read_lora_file(path), strength, encoder)

    @contextmanager
    def for_candidates(self) -> Iterator[None]:
        """Inside, the LoRA of `set_candidate_lora` is on MODEL and CLIP too, if there is one."""
        before, given = (self.patcher, self.clip, self._entries), self._candidates
        try:
            if given is not None:
                self.patcher, clip = given.on(self.patcher, self.clip)
                if given.encoder:
                    self.clip, self._entries = clip, given.entries
            yield
        finally:
            self.patcher, self.clip, self._entries = before

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
