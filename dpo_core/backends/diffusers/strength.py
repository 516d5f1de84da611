"""Draws with the user's LoRA at another strength: the difference is added to the merged weights, then taken back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .loras import Merge, lora_change, plan_merge
from .quantized import raw_parts


class UserLoras:
    """The LoRAs that are merged into a pipeline's weights, with their strengths."""

    pipe: Any
    denoiser: torch.nn.Module
    encoded = "_cond"
    """Attribute that holds the prompts encoded so far, by prompt."""
    _loras: Mapping[Path, float] = {}
    _merges: Sequence[tuple[Merge, float]] | None = None

    def set_loras(self, loras: Mapping[Path, float]) -> None:
        """Say which LoRAs were merged into the pipeline, each with its strength."""
        self._loras, self._merges = dict(loras), None

    def _planned(self) -> Sequence[tuple[Merge, float]]:
        """The layers of all LoRAs with their strengths, read once."""
        if self._merges is None:
            self._merges = [
                (m, strength) for path, strength in self._loras.items() for m in plan_merge(self.pipe, path)
            ]
        return self._merges

    @property
    def fixed_strength(self) -> str:
        """Why the strength of the user's LoRA cannot be changed; "" where it can."""
        if not any(self._loras.values()):
            return "the model has no LoRA of yours (model.lora) whose strength could be changed"
        if any(len(raw_parts(merge.module.weight)) > 1 for merge, _ in self._planned()):
            return "your LoRA is merged into quantized weights, whose strength cannot be changed"
        return ""

    @contextmanager
    def at_lora_strength(self, factor: float) -> Iterator[None]:
        """Inside, the user's LoRAs act at `factor` times their strengths: (factor - 1) times their change is added.

        Computed in float32 and rounded to the weights' dtype. On exit every layer has its own tensor again, bit for
        bit. Prompts are encoded anew if a LoRA changes text encoders. May be entered with an adapter on the model.
        """
        kept: dict[int, tuple[torch.nn.Module, torch.Tensor]] = {}
        inside = {id(module) for module in self.denoiser.modules()}
        before = getattr(self, self.encoded)
        try:
            with torch.no_grad():
                for merge, strength in self._planned():
                    module, weight = merge.module, merge.module.weight.data
                    kept.setdefault(id(module), (module, weight))
                    change = lora_change(merge.layer, weight.float(), strength * (factor - 1.0))
                    module.weight.data = weight.clone().add_(change.to(weight))
            if kept.keys() - inside:
                setattr(self, self.encoded, {})
            yield
        finally:
            setattr(self, self.encoded, before)
            for module, weight in kept.values():
                module.weight.data = weight.to(module.weight.device)
