"""DreamBooth with LoRA (arXiv 2208.12242): the personalization before preference training.

Its fidelity-alignment curve over training steps is the baseline that preference training has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..concept import NO_SCALE, Concept
from ..progress import Progress, silent
from ..protocols import Scorer, TextToImage
from ..sampling.sets import pictures
from ..seeds import generator
from ..settings import PersonalizeSettings, SamplingSettings
from ..statistics import mean_known
from .adapter import Adapter, drawing
from .objectives import denoising_error


@dataclass(frozen=True)
class CurvePoint:
    """Mean scores on the probe prompts after `step` optimizer steps, by scorer; without one that gave no score."""

    step: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Start:
    """Result of personalization: the step that it ended at, the curve, and a sentence for the user.

    `extended`: trained beyond `settings.steps` because it was under-fitted. `under_fitted`: still under-fitted.
    """

    step: int
    curve: list[CurvePoint]
    extended: bool
    under_fitted: bool
    sentence: str


def is_under_fitted(fidelity: float, untrained: float, photos: float | None, share: float) -> bool:
    """Whether fidelity has risen less than `share` of the way from the untrained model to the photos.

    `photos`: fidelity score of held-out (or reference) photos, which a perfect likeness in other places would reach.
    None, for a single photo, is never under-fitted: there is no scale. The rule was fixed before any measurement.
    """
    return photos is not None and fidelity - untrained < share * max(photos - untrained, 1e-6)


class Personalizer:
    """Denoising training of an adapter on the reference photos. Every random draw depends on (seed, step) alone."""

    def __init__(self, model: TextToImage, adapter: Adapter, concept: Concept, settings: PersonalizeSettings) -> None:
        self.model, self.adapter, self.settings = model, adapter, settings
        self.latents = model.encode_images(concept.references)
        self.cond = model.encode_prompts([concept.caption] * settings.batch_size)
        self.optimizer = torch.optim.AdamW(adapter.parameters(), lr=settings.learning_rate, weight_decay=0.0)

    def train(self, first: int, last: int, tell: Callable[[int, float], None]) -> None:
        """Run the steps first..last-1; `tell(steps done, loss)` is called after each."""
        size = self.settings.batch_size
        with self.adapter.attached():
            for step in range(first, last):
                draws = generator(self.settings.seed, 3, step)
                picks = torch.randint(0, len(self.latents), (size,), generator=draws)
                times = self.model.draw_timesteps(size, draws)
                x0 = self.latents[picks].to(self.model.device)
                noise = torch.randn(x0.shape, generator=draws).to(self.model.device)
                noised, target = self.model.noised(x0, noise, times)
                loss = denoising_error(self.model.predict(noised, times, self.cond), target).mean()
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), 1.0)
                self.optimizer.step()
                tell(step + 1, float(loss.detach()))


@dataclass(frozen=True)
class Probe:
    """Held-out prompts, seeds and scorers that measure the points of the curve."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    sampling: SamplingSettings
    scorers: Sequence[Scorer]

    def measure(self, model: TextToImage, adapter: Adapter, step: int) -> CurvePoint:
        with drawing(model, adapter):
            pixels = pictures(model, self.prompts, self.seeds, self.sampling)
        means = {s.name: float(mean_known(s.score(pixels, list(self.prompts)))) for s in self.scorers}
        return CurvePoint(step, {name: mean for name, mean in means.items() if not np.isnan(mean)})


def personalize(
    model: TextToImage,
    adapter: Adapter,
    concept: Concept,
    settings: PersonalizeSettings,
    probe: Probe,
    photos_fidelity: float | None,
    progress: Progress = silent,
) -> Start:
    """Train the adapter for `settings.steps` steps, and further while it is under-fitted.

    Extensions are a quarter of `settings.steps` each, up to `settings.max_steps`. Points of `settings.curve` beyond the
    end show what longer DreamBooth training would have given; the adapter is then restored to the end.

    `probe.scorers` must hold one named "fidelity"; `photos_fidelity` is that scorer's mean on held-out photos of the
    concept, or None for a single photo.
    """
    trainer = Personalizer(model, adapter, concept, settings)
    stops = sorted({s for s in settings.curve if s <= settings.steps} | {0, settings.steps})
    curve, done, last = [], 0, settings.steps

    def tell(step: int, loss: float) -> None:
        progress("personalize", step, max(last, step), note=f"loss {loss:.4f}")

    for stop in stops:
        trainer.train(done, stop, tell)
        curve.append(probe.measure(model, adapter, stop))
        done = stop

    def under_fitted() -> bool:
        here, zero = curve[-1].scores["fidelity"], curve[0].scores["fidelity"]
        return is_under_fitted(here, zero, photos_fidelity, settings.min_fidelity_gain)

    extended = False
    while under_fitted() and done < settings.max_steps:
        last = min(settings.max_steps, done + max(1, settings.steps // 4))
        trainer.train(done, last, tell)
        curve.append(probe.measure(model, adapter, last))
        done, extended = last, True
    poor = under_fitted()
    start = Start(done, curve, extended, poor, _sentence(curve, done, extended, poor, photos_fidelity))
    end = adapter.state()
    for stop in sorted(s for s in settings.curve if s > start.step):
        trainer.train(done, stop, tell)
        curve.append(probe.measure(model, adapter, stop))
        done = stop
    adapter.load(end)
    return start


def _sentence(curve: list[CurvePoint], done: int, extended: bool, poor: bool, photos: float | None) -> str:
    first, end = curve[0].scores["fidelity"], curve[-1].scores["fidelity"]
    scale = NO_SCALE if photos is None else f"photos of the concept in other places score {photos:.3f}"
    text = f"Personalized in {done} steps: fidelity {first:.3f} -> {end:.3f} ({scale})."
    if extended:
        text += " It was under-fitted after the planned steps, so training was extended."
    return text + (" It is still under-fitted: preference training may trade alignment for fidelity." if poor else "")
