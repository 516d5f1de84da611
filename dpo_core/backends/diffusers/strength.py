"""Draws with the user's LoRA at another strength, or with a LoRA for candidates: a change that is added to the merged
weights, then taken back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...errors import UserError
from ...training.lora_files import lora_mark
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
    _for_candidates: Sequence[tuple[Merge, float]] = ()
    candidate_lora: str = ""
    """Hash of the LoRA for candidates and its strength; "" without one."""

    def set_loras(self, loras: Mapping[Path, float]) -> None:
        """Say which LoRAs were merged into the pipeline, each with its strength."""
        self._loras, self._merges = dict(loras), None

    def set_candidate_lora(self, lora: Path, strength: float) -> None:
        """Name a LoRA that acts inside `for_candidates` alone, such as one that draws in few steps.

        Raises UserError when it does not fit the model, or when the weights it changes are quantized.
        """
        planned = [(merge, strength) for merge in plan_merge(self.pipe, lora)]
        if _quantized(planned):
            raise UserError(
                f"{lora} cannot be put on for candidates: the model's weights are quantized, and LoRAs are merged into "
                "weights. Leave model.candidate_lora or model.quantize empty."
            )
        self._for_candidates, self.candidate_lora = planned, lora_mark(lora, strength)

    @contextmanager
    def for_candidates(self) -> Iterator[None]:
        """Inside, the LoRA of `set_candidate_lora` acts too, if there is one; as `at_lora_strength`."""
        with self._changed(self._for_candidates):
            yield

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
        if _quantized(self._planned()):
            return "your LoRA is merged into quantized weights, whose strength cannot be changed"
        return ""

    @contextmanager
    def at_lora_strength(self, factor: float) -> Iterator[None]:
        """Inside, the user's LoRAs act at `factor` times their strengths: (factor - 1) times their change is added.

        Computed in float32 and rounded to the weights' dtype. On exit every layer has its own tensor again, bit for
        bit. Prompts are encoded anew if a LoRA changes text encoders. May be entered with an adapter on the model.
        """
        with self._changed([(merge, strength * (factor - 1.0)) for merge, strength in self._planned()]):
            yield

    @contextmanager
    def _changed(self, planned: Sequence[tuple[Merge, float]]) -> Iterator[None]:
        """Inside, the change of each layer at its strength is on the weights."""
        kept: dict[int, tuple[torch.nn.Module, torch.Tensor]] = {}
        inside = {id(module) for module in self.denoiser.modules()}
        before = getattr(self, self.encoded)
        try:
            _put_on(planned, kept)
            if kept.keys() - inside:
                setattr(self, self.encoded, {})
            yield
        finally:  # also after an error or interrupt while the change is put on
            setattr(self, self.encoded, before)
            for module, weight in kept.values():
                module.weight.data = weight.to(module.weight.device)


@torch.no_grad()
def _put_on(planned: Sequence[tuple[Merge, float]], kept: dict[int, tuple[torch.nn.Module, torch.Tensor]]) -> None:
    """Add the changes to the weights; `kept` gets each layer's own tensor. Raises UserError where memory runs out."""
    try:
        for merge, strength in planned:
            module, weight = merge.module, merge.module.weight.data
            kept.setdefault(id(module), (module, weight))
            change = lora_change(merge.layer, weight.float(), strength)
            module.weight.data = weight.clone().add_(change.to(weight))
    except torch.OutOfMemoryError as error:
        raise UserError(
            "the LoRA that is put on for candidates, or at another strength, does not fit into memory beside the "
            "weights that it changes. Draw on a larger card, or leave model.candidate_lora, sampling.lora_spread and "
            "sampling.base_candidates out."
        ) from error


def _quantized(planned: Sequence[tuple[Merge, float]]) -> bool:
    """Whether a layer that would change is stored quantized."""
    return any(len(raw_parts(merge.module.weight)) > 1 for merge, _ in planned)
