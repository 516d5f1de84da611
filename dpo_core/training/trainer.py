"""Trainer of one round: optimizer steps on the adapter's policy weights against its frozen reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from ..crew import ALONE, Crew
from ..errors import UserError
from ..protocols import TextToImage
from ..seeds import generator
from ..settings import DRIFTING, TrainSettings
from .adapter import Adapter
from .auto_beta import AutoBeta
from .dataset import Batch, Sides, TrainingData, gather, resident, to_device
from .group_objectives import GroupErrors
from .kto_point import step_point
from .loser_guard import guarded, guarded_group
from .memory.levels import PAIR_BY_PAIR, first_level, next_level
from .memory.stream import mover_for
from .objectives import OBJECTIVES, PairErrors, denoising_error, gap_weights
from .pending import Pending, fetch
from .rate import learning_rate
from .reference_cache import Reference, ReferenceCache, fill, forwards_to_fill
from .shares import bounds, check_shares
from .step_metrics import Means, Weighted, step_metrics
from .times import draw_times
from .trainer_state import load_state, state_of
from .visits import visits
from .weight_average import WeightAverage


class Trainer:
    """AdamW on the adapter of one model for the pairs, or the groups, of one round.

    Every random draw depends on (seed, step) alone, so a resumed run gives the same numbers as an uninterrupted one.
    settings: settled for the model's family (families.training_for). Raises UserError for the objective reward_gap,
    and for margin_weight, when no pair has a reward gap.
    """

    def __init__(
        self,
        model: TextToImage,
        adapter: Adapter,
        data: TrainingData,
        settings: TrainSettings,
        seed: int,
        crew: Crew = ALONE,
    ) -> None:
        self.crew = crew
        check_shares(settings, crew)
        self.model, self.adapter, self.settings, self.seed = model, adapter, settings, seed
        self.level, self.mover = first_level(settings, model.whole), mover_for(model.device)
        self.data = resident(data.of_seed(seed), model.device)
        self.times = settings.time_sampling, settings.time_shift
        self.cache = (
            ReferenceCache(len(data), settings.reference_bank, seed, model.device, *self.times, data.width)
            if settings.reference_bank
            else None
        )
        adapts = settings.auto_beta == "on"
        self.auto_beta = AutoBeta(settings.beta_floor, settings.beta_ceiling, model.device) if adapts else None
        self.average = None if settings.ema_decay is None else WeightAverage(settings.ema_decay)
        self.parameters = adapter.parameters()
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.objective = OBJECTIVES[settings.objective]
        asks = "margin_weight" if settings.margin_weight else settings.objective
        if asks in ("margin_weight", "reward_gap") and not data.gaps.any():
            raise UserError(
                f"{asks} needs the reward gaps of the pairs, but these pairs have none. Choose another objective, or "
                "leave margin_weight at 0."
            )
        self.weights = gap_weights(data.gaps, settings.margin_weight) if settings.margin_weight else None

    def visits(self, step: int, part: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pairs and epochs of forward `part` of a step, int64 [batch_size] each; see `visits.visits`."""
        size, data = self.settings.batch_size, self.data
        first = (step * self.settings.accumulation + part) * size
        return visits(self.seed, len(data), first, size, data.own, data.weight)

    def picks(self, step: int, part: int) -> torch.Tensor:
        """Indices of the pairs of one forward, int64 [batch_size]."""
        return self.visits(step, part)[0]

    def step(self, step: int) -> dict[str, float]:
        """One optimizer step; returns its record.

        Must run inside `adapter.attached()`. Raises TrainingStopped after a step whose loss or gradient is not finite.
        """
        return self.fetch([self.advance(step)])[0]

    def advance(self, step: int) -> Pending:
        """One optimizer step, without waiting for the GPU; `fetch` reads the metrics.

        Must run inside `adapter.attached()`.
        """
        rate = learning_rate(self.settings, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        point, references = step_point(self, step)
        means = self.crew.together(lambda: self._accumulate(step, point, references))
        if self.crew.size > 1:
            self.crew.sum([*(p.grad for p in self.parameters if p.grad is not None), *means.parts()])
        metrics = {**means.values(), "grad_norm": self._optimize()}
        if self.average is not None:
            self.average.add(step, self.adapter)
        if self.auto_beta:
            metrics["beta"] = self.auto_beta.value()
            self.auto_beta.add(metrics.pop("margin_size"))
        return Pending(step, rate, tuple(metrics), torch.stack(list(metrics.values())))

    def _accumulate(self, step: int, point: torch.Tensor | None, references: Sequence[Reference]) -> Means:
        """Forward and backward of this process' pairs of one step; returns their metrics."""
        means, pairs = Means(), self.settings.accumulation * self.settings.batch_size
        for number, piece in enumerate(self.forwards(step)):
            # Objectives without a reference need its errors too, for the winner-error alarm and the margin.
            reference = references[number] if references else self.reference(piece)
            loss, numbers = self._policy(piece, reference, point)
            self._backward(loss * (len(piece.picks) / pairs))
            means.add(numbers)
        return means

    def forwards(self, step: int) -> Iterator[Batch]:
        """Inputs of each forward of one optimizer step, of this process' pairs."""
        for part in range(self.settings.accumulation):
            if (own := self._own(step, part)) is not None:
                yield from self._pieces(own)

    def _own(self, step: int, part: int) -> Batch | None:
        """This process' pairs of forward `part` of a step; None where it has none of them."""
        size, first, last = self.settings.batch_size, *bounds(self.crew, self.settings, part)
        if first >= last:
            return None
        batch = self._batch(step, part)
        return batch if (first, last) == (0, size) else batch.share(first, last)

    @staticmethod
    def fetch(steps: Sequence[Pending]) -> list[dict[str, float]]:
        """Records of completed steps; see `pending.fetch`."""
        return fetch(steps)

    def lower_level(self) -> bool:
        """Switch to the next memory level; False when there is none (see `next_level`).

        The level "stream" is first tried once more without the next block on the device.
        """
        if self.level == "stream" and self.mover.ahead:
            self.mover.ahead = False
            return True
        after = next_level(self.settings, self.level, self.model.denoiser)
        self.level = after or self.level
        return after is not None

    def fill_cache(self, tell: Callable[[int, int], None] | None = None) -> None:
        """Compute the reference errors that the planned steps will need; does nothing without a reference cache.

        Must run inside `adapter.attached()`. `tell(done, of)` is called after each forward.
        """
        if self.cache is None:
            return
        settings = self.settings
        parts = settings.accumulation
        planned = settings.steps * parts
        forwards = forwards_to_fill(
            len(self.data), settings.reference_bank, settings.batch_size, planned, self.data.own, self.data.weight
        )
        known = self.cache.known.clone()
        self.crew.together(
            lambda: fill(
                self.cache,
                forwards,
                lambda n: self._own_visits(*divmod(n, parts)),
                lambda n: self._reference_forward(self._own(*divmod(n, parts))),
                tell,
            )
        )
        if self.crew.size > 1:
            self.cache.merge(known, self.crew)

    def _own_visits(self, step: int, part: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `visits`, of this process' pairs."""
        first, last = bounds(self.crew, self.settings, part)
        picks, epochs = self.visits(step, part)
        return picks[first : max(first, last)], epochs[first : max(first, last)]

    def job(self, first: int, earlier: Sequence[dict]) -> dict[str, object]:
        """What other processes need to train the same steps from `first`. earlier: records of the steps before."""
        state = {name: tensor.detach().cpu() for name, tensor in self.state().items()}
        return {
            "pairs": self.data.sent(), "settings": self.settings, "seed": self.seed, "state": state,
            "level": self.level, "first": first, "earlier": list(earlier),
        }  # fmt: skip

    def _batch(self, step: int, part: int) -> Batch:
        """Inputs of forward `part` of a step, with times and noise of the cache or, without one, new draws."""
        model, device = self.model, self.model.device
        picks, epochs = self.visits(step, part)
        data, width = self.data, self.data.width
        if self.cache is None:
            draws = generator(self.seed, 2, step, part)
            times = draw_times(model, len(picks), draws, *self.times)
            noise = torch.randn(len(picks), *data.shape, generator=draws)
        else:
            times, noise = self.cache.draw(model, picks, epochs, data.shape)
        # The pictures of a row share one time and one noise.
        times, noise = (torch.cat([to_device(t, device)] * width) for t in (times, noise))
        # Of a reference cache the draws are used in turn, and a group's candidates with them.
        chosen = data.chosen(picks, epochs if self.cache is None else epochs % self.cache.draws)
        x0 = data.samples(chosen, device)
        cond = {k: torch.cat([v] * width) for k, v in data.conditioning(picks, device).items()}
        noised, target = model.noised(x0, noise, times)
        return Batch(picks, epochs, noised, target, times, cond, chosen)

    def _sides(self, prediction: torch.Tensor, target: torch.Tensor) -> Sides:
        """Errors of a prediction [w b, C, h, w] by place in the row."""
        return denoising_error(prediction, target).chunk(self.data.width)

    def _reference_forward(self, batch: Batch) -> Sides:
        """Compute the reference's errors of a batch, in the pieces of `_pieces`."""
        errors = [self._reference_of(piece).errors for piece in self._pieces(batch)]
        return tuple(torch.cat(side) for side in zip(*errors, strict=True))

    def _reference_of(self, piece: Batch) -> Reference:
        """The reference's errors of one forward, and its prediction where the objective needs it."""
        with torch.no_grad(), self.adapter.reference():
            prediction = self.model.predict(piece.noised, piece.times, piece.cond)
            errors = self._sides(prediction, piece.target)
        return Reference(errors, prediction if self.settings.objective in DRIFTING else None)

    def reference(self, batch: Batch) -> Reference:
        """The reference's errors of a forward, from the reference cache if there is one."""
        if self.cache is None:
            return self._reference_of(batch)
        if self.cache.missing(batch.picks, batch.epochs):
            self.fill_cache()
        return Reference(self.cache.lookup(batch.picks, batch.epochs))

    def _pieces(self, batch: Batch) -> list[Batch]:
        """Split a batch into forwards: a single one, or one per row at the lowest memory levels."""
        return batch.pieces(1 if self.level in PAIR_BY_PAIR else len(batch.picks))

    def errors(
        self, batch: Batch, reference: Reference, point: torch.Tensor | None = None
    ) -> tuple[PairErrors | GroupErrors, torch.Tensor]:
        """Run the policy on a batch; returns its errors with the reference's, and its prediction [w b, C, h, w]."""
        prediction = self.model.predict(batch.noised, batch.times, batch.cond)
        own, beta = self._sides(prediction, batch.target), self.auto_beta.value() if self.auto_beta else None
        drift = None if reference.prediction is None else self._sides(prediction, reference.prediction)
        beta = self.settings.beta if beta is None else beta
        return self.data.errors(batch.chosen, own, reference.errors, beta, drift, point), prediction

    def _policy(
        self, batch: Batch, reference: Reference, point: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Weighted]:
        """Loss (scalar, with gradient) and the metrics of one policy forward, with the loser guard if it is on."""
        errors, prediction = self.errors(batch, reference, point)
        scale = None
        if self.settings.loser_guard is not None:
            guard = guarded_group if isinstance(errors, GroupErrors) else guarded
            errors, scale = guard(self.objective, errors, prediction, batch.target, self.settings.loser_guard)
        losses = self.objective(errors)
        if self.weights is not None:
            losses = losses * gather(self.weights, batch.picks, losses.device)
        loss = losses.mean()
        return loss, step_metrics(loss.detach(), errors, scale, sizes=self.auto_beta is not None)

    def _backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def _optimize(self) -> torch.Tensor:
        """Clip the gradients and take the AdamW step; returns the norm before clipping, a scalar on the device."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        self.optimizer.step()
        return norm

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors that the next step depends on; see `trainer_state.state_of`."""
        return state_of(self)

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load what `state` returned. Raises UserError when it is of another adapter or reference cache."""
        load_state(self, tensors)

    def averaged(self) -> AbstractContextManager:
        """Inside, the policy has the weights that the round would end with: their moving average where it is on."""
        return nullcontext() if self.average is None else self.average.applied(self.adapter)
