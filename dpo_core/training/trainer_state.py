"""What a trainer's next step depends on, as tensors by name: for checkpoints and for other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .trainer import Trainer


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copies of policy, reference, reference cache (`bank.`), auto-beta, weight average (`average.`), optimizer."""
    tensors = {f"policy.{k}": v for k, v in trainer.adapter.state().items()}
    tensors |= {f"reference.{k}": v for k, v in trainer.adapter.reference_state().items()}
    tensors |= {f"bank.{k}": v for k, v in (trainer.cache.state() if trainer.cache else {}).items()}
    tensors |= {f"beta.{k}": v for k, v in (trainer.auto_beta.state() if trainer.auto_beta else {}).items()}
    tensors |= {f"average.{k}": v for k, v in (trainer.average.state() if trainer.average else {}).items()}
    for i, moments in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v).clone() for k, v in moments.items()}
    return tensors


def load_state(trainer: Trainer, tensors: dict[str, torch.Tensor]) -> None:
    """Load what `state_of` returned. Raises UserError when it is of another adapter or reference cache."""

    def under(prefix: str) -> dict[str, torch.Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    trainer.adapter.load(under("policy."))
    trainer.adapter.load_reference(under("reference."))
    if trainer.cache:
        trainer.cache.load(under("bank."))
    if trainer.auto_beta:
        trainer.auto_beta.load(under("beta."))
    if trainer.average:
        trainer.average.load(under("average."), trainer.adapter)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in under("optimizer.").items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    optimizer = trainer.optimizer
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
