"""One round of preference training: the adapter's policy against its frozen reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .adapter import Adapter
from .errors import UserError
from .loser_guard import guarded
from .objectives import OBJECTIVES, PairErrors, denoising_error
from .protocols import Cond, TextToImage
from .seeds import derive_seed, generator
from .settings import TrainSettings

ALARM_WINDOW = 20
"""Steps over which the winner-error alarm averages."""


class TrainingStopped(UserError):
    """Training was ended by a guard; the adapter was put back to the last good state. `records`: steps after that state, for the curves."""

    records: Sequence[dict] = ()


@dataclass(frozen=True)
class PairData:
    """Latents of winners and losers [n, C, h, w] and the conditioning of their n prompts."""

    winners: torch.Tensor
    losers: torch.Tensor
    cond: Cond
    gaps: torch.Tensor | None = None
    """Reward gaps float32 [n], in standard deviations of the round (`Pair.gap`); None becomes zeros."""

    def __post_init__(self) -> None:
        if len(self.winners) == 0:
            raise UserError("there are no pairs to train on. Widen the angle window, lower the margin, or sample more candidates.")
        if self.gaps is None:
            object.__setattr__(self, "gaps", torch.zeros(len(self.winners)))
        if len(self.gaps) != len(self.winners):
            raise UserError(f"{len(self.gaps)} reward gaps for {len(self.winners)} pairs: give one for each pair.")

    def __len__(self) -> int:
        return len(self.winners)


class Trainer:
    """AdamW on the adapter, step by step. Every draw depends on (seed, step) alone, so a resumed run repeats the unbroken one."""

    def __init__(self, model: TextToImage, adapter: Adapter, data: PairData, settings: TrainSettings, seed: int) -> None:
        self.model, self.adapter, self.data, self.settings, self.seed = model, adapter, data, settings, seed
        self.parameters = adapter.parameters()
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.objective = OBJECTIVES[settings.objective]
        if settings.objective == "reward_gap" and not data.gaps.any():
            raise UserError("the objective reward_gap learns the pairs' reward gaps, and these pairs have none. Choose another objective.")

    def picks(self, step: int, part: int) -> torch.Tensor:
        """Indices of the pairs of one forward: epochs of shuffled pairs, in a row."""
        size = self.settings.batch_size
        first = (step * self.settings.accumulation + part) * size
        chosen = []
        for place in range(first, first + size):
            epoch, rest = divmod(place, len(self.data))
            chosen.append(int(torch.randperm(len(self.data), generator=generator(self.seed, 1, epoch))[rest]))
        return torch.tensor(chosen)

    def step(self, step: int) -> dict[str, float]:
        """One optimizer step; returns its record. Must run inside `adapter.attached()`."""
        rate = learning_rate(self.settings, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        for part in range(self.settings.accumulation):
            loss, numbers = self._forward(step, part)
            (loss / self.settings.accumulation).backward()
            for name, value in numbers.items():
                sums[name] = sums.get(name, 0) + value / self.settings.accumulation
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        sums["grad_norm"] = norm
        found = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
        record = {"step": step, **found, "learning_rate": rate}
        if not (math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"])):
            raise TrainingStopped(
                f"the loss is {record['loss']} and the gradient norm {record['grad_norm']} at step {step}: training stopped, the last good "
                "adapter is kept. Lower the learning rate or beta, or use fp32."
            )
        self.optimizer.step()
        return record

    def _forward(self, step: int, part: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss (scalar) and the numbers of its record: loss, winner and loser error above the reference's, margin, accuracy; with the
        loser guard, the mean scale of the losers' gradients too."""
        model, device = self.model, self.model.device
        picks = self.picks(step, part)
        draws = generator(self.seed, 2, step, part)
        times = model.draw_timesteps(len(picks), draws)
        x0 = torch.cat([self.data.winners[picks], self.data.losers[picks]]).to(device)
        # One time and one noise for both pictures of a pair.
        noise = torch.cat([torch.randn(x0[: len(picks)].shape, generator=draws)] * 2).to(device)
        times = torch.cat([times, times])
        cond = {k: torch.cat([v[picks], v[picks]]).to(device) for k, v in self.data.cond.items()}
        noised, target = model.noised(x0, noise, times)
        # Where the objective needs no reference, too: the winner-error alarm and the margin are measured against it.
        with torch.no_grad(), self.adapter.reference():
            winner_ref, loser_ref = denoising_error(model.predict(noised, times, cond), target).chunk(2)
        prediction = model.predict(noised, times, cond)
        winner, loser = denoising_error(prediction, target).chunk(2)
        errors = PairErrors(winner, winner_ref, loser, loser_ref, self.data.gaps[picks].to(device), self.settings.beta)
        scale = None
        if self.settings.loser_guard is not None:
            errors, scale = guarded(self.objective, errors, prediction, target, self.settings.loser_guard)
        loss = self.objective(errors).mean()
        return loss, _numbers(loss.detach(), errors, scale)

    def state(self) -> dict[str, torch.Tensor]:
        """Policy, reference and optimizer as tensors: all that the next step depends on."""
        tensors = {f"policy.{k}": v for k, v in self.adapter.state().items()}
        tensors |= {f"reference.{k}": v for k, v in self.adapter.reference_state().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v).clone() for k, v in moments.items()}
        return tensors

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        def under(prefix: str) -> dict[str, torch.Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.adapter.load(under("policy."))
        self.adapter.load_reference(under("reference."))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in under("optimizer.").items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})


@torch.no_grad()
def _numbers(loss: torch.Tensor, errors: PairErrors, scale: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What a record says of one forward, scalars on the device."""
    numbers = {
        "loss": loss,
        "winner_error": (errors.winner - errors.winner_reference).mean(),
        "loser_error": (errors.loser - errors.loser_reference).mean(),
        "margin": errors.margin.mean(),
        "accuracy": (errors.margin > 0).float().mean(),
    }
    return numbers if scale is None else {**numbers, "loser_scale": scale.mean()}


def learning_rate(settings: TrainSettings, step: int) -> float:
    """AdamW's rate at a step 0..steps-1: linear warm-up, then constant, or falling linearly to learning_rate / steps at the last step.

    For 10 steps, warm-up 2 and rate 1: 0.5, 0.9, 0.8, ... 0.1 when it falls; 0.5, 1, 1, ... when constant.
    """
    rate = settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return rate if settings.schedule == "constant" else min(rate, settings.learning_rate * (settings.steps - step) / settings.steps)


Save = Callable[[int, dict[str, torch.Tensor], list[dict]], None]


def train_round(
    trainer: Trainer,
    first_step: int = 0,
    earlier: list[dict] | None = None,
    save: Save | None = None,
    tell: Callable[[dict], None] | None = None,
) -> list[dict]:
    """Run the trainer to its last step; `save(next_step, state, new_records)` is called every `checkpoint_every` steps and at the end.

    Raises TrainingStopped on a loss that is not finite, or when the winner's error runs away (`winner_error_collapse`): the adapter then
    holds the last saved state.
    """
    settings = trainer.settings
    records, fresh = list(earlier or []), []
    good = trainer.state()
    try:
        with trainer.adapter.attached():
            for step in range(first_step, settings.steps):
                record = trainer.step(step)
                records.append(record)
                fresh.append(record)
                record["winner_alarm"] = winner_alarm(records)
                if record["winner_alarm"] > settings.winner_error_collapse:
                    raise TrainingStopped(
                        f"the winner's error is {record['winner_alarm']:.3f} above the reference's at step {step} (limit "
                        f"{settings.winner_error_collapse}): the model is collapsing. Training stopped, the last good adapter is kept. "
                        "Lower the learning rate, raise beta, or take fewer steps."
                    )
                if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
                    good = trainer.state()
                    if save:
                        save(step + 1, good, fresh)
                    fresh = []
                if tell:
                    tell(record)
    except TrainingStopped as stop:
        trainer.load_state(good)
        stop.records = fresh
        raise
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"training on {settings.batch_size} pairs at once does not fit into memory. Train fewer pairs at once (batch_size; "
            "pairs_per_step in ComfyUI) and raise accumulation by the same factor, or turn on gradient checkpointing. What was sampled and "
            "scored is kept."
        ) from error
    return records


def winner_alarm(records: list[dict]) -> float:
    """Mean winner error above the reference's over the last 20 steps (fewer at the start count as zero)."""
    return sum(r["winner_error"] for r in records[-ALARM_WINDOW:]) / ALARM_WINDOW


def training_seed(seed: int, round_index: int) -> int:
    return derive_seed(seed, 77, round_index)
