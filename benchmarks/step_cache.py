"""Sampler steps whose forward is left out (a step cache), beside a sampler of as few steps.

    python -m dreambooth_dpo.benchmarks.step_cache --concepts 5-7

The candidates of toybox subjects are drawn from the same noise in all steps, with a step cache at several thresholds,
with the last output used again, and in fewer steps. For each: forwards of a picture, how far its latents are from those
of all steps (mean absolute difference over their standard deviation), and how well its reward predicts theirs
(correlation within prompts). Means over concepts. Prints a table, and writes step_cache.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..dpo_core.statistics import standardise
from .common.command import command_parser, write_result
from .common.concepts import EARLIER, by_concept
from .common.tables import print_table

THRESHOLDS = (0.02, 0.05, 0.1, 0.2)
EVERY = (2, 3)
STEPS = (6, 4)
PER_PROMPT = 10

Forward = Callable[[], torch.Tensor]


class StepCache:
    """EasyCache (arXiv 2507.02860, section 3) on a denoiser of one forward a step, as a toybox model's at guidance 1.

    The output v is expected to change by k |dx|, with k = |v - v'| / |x - x'| of the last two forwards. While the sum
    of these changes, relative to |v|, stays below `threshold`, the output is x + (v - x) of the last forward.
    Norms are means of absolute values over the batch. The first two steps are forwards; a later time starts anew.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold, self.steps, self.forwards = threshold, 0, 0
        self._time = float("-inf")
        self._forget()

    def _forget(self) -> None:
        self._rate = self._last = self._seen = None
        self._change = 0.0

    def __call__(self, forward: Any, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """The output for x [n, C, h, w] at `time`; `forward()` computes it. Times fall along a path."""
        if float(time) >= self._time:
            self._forget()
        self._time, self.steps = float(time), self.steps + 1
        if self._rate is not None:
            self._change += float(self._rate * (x - self._seen).abs().mean() / self._last[1].abs().mean())
            if self._change < self.threshold:
                self._seen = x
                return x + (self._last[1] - self._last[0])
        value = forward()
        self.forwards += 1
        if self._last is not None:
            self._rate = (value - self._last[1]).abs().mean() / (x - self._last[0]).abs().mean()
        self._last, self._seen, self._change = (x, value), x, 0.0
        return value


@contextmanager
def cached_steps(denoiser: nn.Module, cache: StepCache) -> Iterator[None]:
    """Inside, forwards of a diffusers denoiser (sample, time, ...) go through the cache."""
    own = denoiser.forward

    def forward(sample: torch.Tensor, time: torch.Tensor, *args: Any, **more: Any) -> Any:
        kept: list = []

        def call() -> torch.Tensor:
            kept.append(own(sample, time, *args, **more))
            return kept[0].sample

        value = cache(call, sample, time)
        return kept[0] if kept else _Output(value)

    denoiser.forward = forward
    try:
        yield
    finally:
        del denoiser.forward


class EveryStep:
    """A forward at each `every`-th step of a path, from the first; its output is used again until the next."""

    def __init__(self, every: int) -> None:
        self.every, self.steps, self.forwards, self._at = every, 0, 0, 0
        self._time = float("-inf")

    def __call__(self, forward: Forward, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """As `StepCache`."""
        self._at = 0 if float(time) >= self._time else self._at + 1
        self._time, self.steps = float(time), self.steps + 1
        if self._at % self.every == 0:
            self._value = forward()
            self.forwards += 1
        return self._value


@dataclass(frozen=True)
class _Output:
    sample: torch.Tensor


def ways() -> dict[str, tuple[int, Callable[[], Any]]]:
    """{name: (steps of the sampler or 0 for all of them, maker of the cache or None)}; the first draws in full."""
    return {
        "all steps": (0, lambda: None),
        **{f"step cache, threshold {t:g}": (0, lambda t=t: StepCache(t)) for t in THRESHOLDS},
        **{f"a forward every {n} steps": (0, lambda n=n: EveryStep(n)) for n in EVERY},
        **{f"{n} steps": (n, lambda: None) for n in STEPS},
    }


def run_concept(seed: int, out: Path) -> dict[str, dict[str, float]]:
    """{way: {"forwards" of a picture, "distance", "correlation"}} of one concept."""
    from ..dpo_core.backends.diffusers.model import DiffusersTextToImage
    from ..dpo_core.pairs.rules import reward_of
    from ..dpo_core.sampling.sets import plan
    from ..toybox.concepts import concept_from_seed
    from ..toybox.run import start_of, toy_pipeline, toy_prompts, toy_scorers

    toy, sampling = concept_from_seed(seed), EARLIER.sampling
    lora, _ = start_of(toy, out / f"concept_{seed}" / "start", loop=EARLIER)
    model, scorers = DiffusersTextToImage(toy_pipeline("cpu", lora)), toy_scorers(toy).rewards
    planned = plan(toy_prompts(toy).train, PER_PROMPT, sampling.seed, 0, sampling.batch_size)
    prompts, seeds = [c.prompt for c in planned], [c.seed for c in planned]
    prompt_of, found, whole = np.asarray([c.prompt_index for c in planned]), {}, None
    for name, (steps, make) in ways().items():
        cache = make()
        settings = sampling.model_copy(update={"steps": steps or sampling.steps})
        with cached_steps(model.denoiser, cache) if cache else nullcontext():
            parts = range(0, len(prompts), sampling.batch_size)
            latents = torch.cat([model.sample(prompts[i : i + sampling.batch_size], seeds[i : i + sampling.batch_size],
                                              settings) for i in parts])  # fmt: skip
        images = model.decode(latents)
        fidelity, alignment = (s.score(images, prompts) for s in scorers[:2])
        drawn = latents, reward_of(prompt_of, fidelity, alignment, EARLIER.pairs)
        whole = whole or drawn
        forwards = settings.steps * (cache.forwards / cache.steps if cache else 1.0)
        found[name] = {"forwards": forwards, **compared(drawn, whole, prompt_of)}
    return found


def compared(
    drawn: tuple[torch.Tensor, np.ndarray], whole: tuple[torch.Tensor, np.ndarray], prompt_of: np.ndarray
) -> dict[str, float]:
    """{"distance", "correlation"} of (latents [n, C, h, w], rewards [n]) and those of all steps."""
    distance = float((drawn[0] - whole[0]).abs().mean() / whole[0].std())
    one, other = (standardise(r, prompt_of) for r in (drawn[1], whole[1]))
    return {"distance": distance, "correlation": float(np.corrcoef(one, other)[0, 1])}


def main() -> None:
    parser = command_parser(__doc__, "benchmark_step_cache", "5-7", jobs=True)
    args = parser.parse_args()
    results = by_concept(run_concept, args.concepts, args.jobs, args.out)
    mean = {
        way: {key: float(np.mean([found[way][key] for found in results.values()])) for key in first}
        for way, first in next(iter(results.values())).items()
    }
    rows = [[way, f"{m['forwards']:.1f}", f"{m['distance']:.3f}", f"{m['correlation']:.3f}"] for way, m in mean.items()]
    print_table("against all steps", ("drawn", "forwards", "distance of latents", "correlation of rewards"), rows)
    write_result(args.out / "step_cache.json", {"mean": mean, "concepts": {str(k): v for k, v in results.items()}})


if __name__ == "__main__":
    main()
