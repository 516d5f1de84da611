"""One round of preference training: the adapter's policy against its frozen reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from .adapter import Adapter
from .compiling import compiled
from .errors import UserError
from .loser_guard import guarded
from .objectives import OBJECTIVES, PairErrors, denoising_error
from .pair_data import Batch, PairData, gather, resident, to_device, visits
from .protocols import TextToImage
from .reference_bank import Errors, ReferenceBank, fill, forwards_of
from .seeds import derive_seed, generator
from .settings import TrainSettings

ALARM_WINDOW = 20
"""Steps over which the winner-error alarm averages."""


class TrainingStopped(UserError):
    """Training was ended by a guard; the adapter was put back to the last good state. `records`: steps after that state, for the curves."""

    records: Sequence[dict] = ()


@dataclass(frozen=True)
class Pending:
    """A step that is done, with its numbers still on the device: float32 [len(names)]."""

    step: int
    learning_rate: float
    names: tuple[str, ...]
    numbers: torch.Tensor


class Trainer:
    """AdamW on the adapter, step by step. Every draw depends on (seed, step) alone, so a resumed run repeats the unbroken one."""

    def __init__(self, model: TextToImage, adapter: Adapter, data: PairData, settings: TrainSettings, seed: int) -> None:
        self.model, self.adapter, self.settings, self.seed = model, adapter, settings, seed
        self.data = resident(data, model.device)
        self.bank = ReferenceBank(len(data), settings.reference_bank, seed, model.device) if settings.reference_bank else None
        self.parameters = adapter.parameters()
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.objective = OBJECTIVES[settings.objective]
        if settings.objective == "reward_gap" and not data.gaps.any():
            raise UserError("the objective reward_gap learns the pairs' reward gaps, and these pairs have none. Choose another objective.")

    def visits(self, step: int, part: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pairs and epochs of one forward, int64 [batch_size] each: epochs of shuffled pairs, in a row."""
        size = self.settings.batch_size
        return visits(self.seed, len(self.data), (step * self.settings.accumulation + part) * size, size)

    def picks(self, step: int, part: int) -> torch.Tensor:
        """Indices of the pairs of one forward."""
        return self.visits(step, part)[0]

    def step(self, step: int) -> dict[str, float]:
        """One optimizer step and its record. Must run inside `adapter.attached()`. Raises TrainingStopped on NaN, after the step."""
        return self.fetch([self.advance(step)])[0]

    def advance(self, step: int) -> Pending:
        """One optimizer step; on a GPU nothing here waits for the numbers. Must run inside `adapter.attached()`."""
        rate = learning_rate(self.settings, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        for part in range(self.settings.accumulation):
            loss, numbers = self._forward(step, part)
            self._backward(loss)
            for name, value in numbers.items():
                sums[name] = sums.get(name, 0) + value / self.settings.accumulation
        sums["grad_norm"] = self._optimize()
        return Pending(step, rate, tuple(sums), torch.stack(list(sums.values())))

    @staticmethod
    def fetch(steps: Sequence[Pending]) -> list[dict[str, float]]:
        """Records of done steps, by one copy from the device. Raises TrainingStopped, with the records before it, at the first that is
        not finite."""
        records: list[dict[str, float]] = []
        for done, row in zip(steps, torch.stack([s.numbers for s in steps]).tolist(), strict=True):
            record = {"step": done.step, **dict(zip(done.names, row, strict=True)), "learning_rate": done.learning_rate}
            if not (math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"])):
                stop = TrainingStopped(
                    f"the loss is {record['loss']} and the gradient norm {record['grad_norm']} at step {done.step}: training stopped, the "
                    "last good adapter is kept. Lower the learning rate or beta, or use fp32."
                )
                stop.records = records
                raise stop
            records.append(record)
        return records

    def fill_bank(self, tell: Callable[[int, int], None] | None = None) -> None:
        """Compute the reference errors that the planned steps will ask for; nothing without a bank. Must run inside `attached()`."""
        if self.bank is None:
            return
        settings = self.settings
        parts = settings.accumulation
        forwards = forwards_of(len(self.data), settings.reference_bank, settings.batch_size, settings.steps * parts)
        fill(self.bank, forwards, lambda n: self.visits(*divmod(n, parts)), lambda n: self._looked_at(self._batch(*divmod(n, parts))), tell)

    def _batch(self, step: int, part: int) -> Batch:
        model, device = self.model, self.model.device
        picks, epochs = self.visits(step, part)
        if self.bank is None:
            draws = generator(self.seed, 2, step, part)
            times = model.draw_timesteps(len(picks), draws)
            noise = torch.randn(len(picks), *self.data.winners.shape[1:], generator=draws)
        else:
            times, noise = self.bank.draw(model, picks, epochs, self.data.winners.shape[1:])
        # One time and one noise for both pictures of a pair.
        times, noise = (torch.cat([to_device(t, device)] * 2) for t in (times, noise))
        x0 = torch.cat([gather(t, picks, device) for t in (self.data.winners, self.data.losers)])
        cond = {k: torch.cat([gather(v, picks, device)] * 2) for k, v in self.data.cond.items()}
        noised, target = model.noised(x0, noise, times)
        return Batch(picks, epochs, noised, target, times, cond)

    def _looked_at(self, batch: Batch) -> Errors:
        """The reference's errors of winners and losers by a forward."""
        with torch.no_grad(), self.adapter.reference():
            return denoising_error(self.model.predict(batch.noised, batch.times, batch.cond), batch.target).chunk(2)

    def _reference(self, batch: Batch) -> Errors:
        """The reference's errors, from the bank where there is one."""
        if self.bank is None:
            return self._looked_at(batch)
        if self.bank.missing(batch.picks, batch.epochs):
            self.fill_bank()
        return self.bank.lookup(batch.picks, batch.epochs)

    def _forward(self, step: int, part: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss (scalar) and the numbers of its record: loss, winner and loser error above the reference's, margin, accuracy; with the
        loser guard, the mean scale of the losers' gradients too."""
        batch = self._batch(step, part)
        # Where the objective needs no reference, too: the winner-error alarm and the margin are measured against it.
        return self._policy(batch, self._reference(batch))

    def _policy(self, batch: Batch, reference: Errors) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        prediction = self.model.predict(batch.noised, batch.times, batch.cond)
        winner, loser = denoising_error(prediction, batch.target).chunk(2)
        gaps = gather(self.data.gaps, batch.picks, self.model.device)
        errors = PairErrors(winner, reference[0], loser, reference[1], gaps, self.settings.beta)
        scale = None
        if self.settings.loser_guard is not None:
            errors, scale = guarded(self.objective, errors, prediction, batch.target, self.settings.loser_guard)
        loss = self.objective(errors).mean()
        return loss, _numbers(loss.detach(), errors, scale)

    def _backward(self, loss: torch.Tensor) -> None:
        (loss / self.settings.accumulation).backward()

    def _optimize(self) -> torch.Tensor:
        """Clip the gradients and take AdamW's step; returns their norm before, a scalar on the device."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        self.optimizer.step()
        return norm

    def state(self) -> dict[str, torch.Tensor]:
        """Policy, reference, its bank and optimizer as tensors: all that the next step depends on."""
        tensors = {f"policy.{k}": v for k, v in self.adapter.state().items()}
        tensors |= {f"reference.{k}": v for k, v in self.adapter.reference_state().items()}
        tensors |= {f"bank.{k}": v for k, v in (self.bank.state() if self.bank else {}).items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v).clone() for k, v in moments.items()}
        return tensors

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        def under(prefix: str) -> dict[str, torch.Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.adapter.load(under("policy."))
        self.adapter.load_reference(under("reference."))
        if self.bank:
            self.bank.load(under("bank."))
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
    tell_bank: Callable[[int, int], None] | None = None,
) -> list[dict]:
    """Run the trainer to its last step; `save(next_step, state, new_records)` is called every `checkpoint_every` steps and at the end.

    Numbers are looked at every `log_every` steps, and before a save in any case; `tell` gets the records then. `tell_bank(done, of)` is
    called while the reference bank is filled. Raises TrainingStopped on a loss that is not finite, or when the winner's error runs away
    (`winner_error_collapse`), at most `log_every` steps late: the adapter then holds the last saved state.
    """
    settings = trainer.settings
    records, fresh = list(earlier or []), []
    good = trainer.state()
    model = trainer.model
    try:
        # Compiled while the adapter's hooks are on: they become part of it.
        with trainer.adapter.attached(), compiled(model.denoiser, model.device) if settings.compile else nullcontext():
            trainer.fill_bank(tell_bank)
            waiting: list[Pending] = []
            for step in range(first_step, settings.steps):
                waiting.append(trainer.advance(step))
                saves = (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps
                if not saves and len(waiting) < settings.log_every:
                    continue
                shown = _looked_through(trainer, waiting, records, fresh)
                waiting = []
                if saves:
                    good = trainer.state()
                    if save:
                        save(step + 1, good, fresh)
                    fresh = []
                for record in shown if tell else ():
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


def _looked_through(trainer: Trainer, waiting: Sequence[Pending], records: list[dict], fresh: list[dict]) -> list[dict]:
    """The records of done steps, appended to both lists one by one. Raises TrainingStopped at the first that is not finite, or whose
    alarm is beyond the limit; the records before it are appended, and in the second case it as well."""
    settings, stop = trainer.settings, None
    try:
        found = trainer.fetch(waiting)
    except TrainingStopped as stopped:
        found, stop = list(stopped.records), stopped
    for record in found:
        records.append(record)
        fresh.append(record)
        record["winner_alarm"] = winner_alarm(records)
        if record["winner_alarm"] > settings.winner_error_collapse:
            raise TrainingStopped(
                f"the winner's error is {record['winner_alarm']:.3f} above the reference's at step {record['step']} (limit "
                f"{settings.winner_error_collapse}): the model is collapsing. Training stopped, the last good adapter is kept. "
                "Lower the learning rate, raise beta, or take fewer steps."
            )
    if stop is not None:
        raise stop
    return found


def winner_alarm(records: list[dict]) -> float:
    """Mean winner error above the reference's over the last 20 steps (fewer at the start count as zero)."""
    return sum(r["winner_error"] for r in records[-ALARM_WINDOW:]) / ALARM_WINDOW


def training_seed(seed: int, round_index: int) -> int:
    return derive_seed(seed, 77, round_index)
