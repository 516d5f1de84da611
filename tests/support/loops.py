"""A loop with a tiny model and colour scorers, which takes milliseconds; as a script, it forks processes to kill.

python loops.py FOLDER PIPELINE SETTINGS   (a folder, or empty; JSON)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import nn

from dreambooth_dpo.dpo_core.crew import ALONE, Crew
from dreambooth_dpo.dpo_core.loop.rounds import Loop
from dreambooth_dpo.dpo_core.progress import Progress, silent
from dreambooth_dpo.dpo_core.prompts import PromptSet
from dreambooth_dpo.dpo_core.protocols import Cond, TextToImage
from dreambooth_dpo.dpo_core.run import files
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.scoring import sets as scoring
from dreambooth_dpo.dpo_core.settings import LoopSettings, SamplingSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter

PROMPTS = PromptSet(
    ("a photo of a sks robot", "a sks robot on sand", "a sks robot in a café"),
    ("a sks robot on snow", "a drawing of a sks robot"),
)
SETTINGS = LoopSettings.model_validate(
    {
        "rounds": 2,
        "sampling": {
            "candidates_per_prompt": 4,
            "steps": 2,
            "guidance": 2.0,
            "width": 64,
            "height": 64,
            "batch_size": 4,
            "seed": 5,
        },
        "pairs": {"rule": "angle_window", "angle_low": -10.0, "angle_high": 100.0, "margin": 0.1},
        "adapter": {"rank": 2, "alpha": 2.0},
        "train": {
            "steps": 6,
            "batch_size": 2,
            "learning_rate": 1e-2,
            "warmup_steps": 2,
            "checkpoint_every": 2,
            "winner_error_collapse": 10,
        },
        "evaluation": {"seeds_per_prompt": 3},
        "stop": {"rule": "last"},
    }
)


def changed(**sections: object) -> LoopSettings:
    """SETTINGS with some values changed, e.g. `changed(rounds=1, train={"steps": 3})`."""
    kept = SETTINGS.model_dump()
    return LoopSettings.model_validate(
        {**kept, **{k: {**kept[k], **v} if isinstance(v, dict) else v for k, v in sections.items()}}
    )


DRAFTED = changed(
    sampling={"candidates_per_prompt": 6, "steps": 6, "draft_steps": 3},
    pairs={"max_pairs_per_prompt": 2, "max_uses": 1},
)
"""Settings with drafts, of which some are finished."""


class Mean:
    """Scores a picture by the mean of one colour channel, 0..1; counts its calls and the pictures of each."""

    def __init__(self, name: str, channel: int, fingerprint: str = "1") -> None:
        self.name, self.channel, self.fingerprint = name, channel, fingerprint
        self.calls: list[int] = []
        self.prompts: list[list[str]] = []

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        self.calls.append(len(images))
        self.prompts.append(list(prompts))
        return images[..., self.channel].reshape(len(images), -1).mean(1) / 255


class TinyDenoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.down_blocks = nn.ModuleList([nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 1)])
        for weight in self.parameters():
            weight.data.normal_(0, 0.3, generator=generator)
            weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_blocks[1](torch.tanh(self.down_blocks[0](x)))


class FakeModel:
    """A TextToImage with latents [3, 8, 8] and pictures of 8 x 8 pixels."""

    fingerprint, precision, merges_adapter, whole = "fake", "fp32", True, True

    def training(self, stream: bool | None = False) -> AbstractContextManager:
        return nullcontext()

    def __init__(self) -> None:
        self.denoiser = TinyDenoiser()
        self.device = torch.device("cpu")
        self.batches: list[int] = []

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        return {"shift": torch.tensor([crc32(p.encode()) % 97 / 97 for p in prompts]).view(-1, 1, 1, 1)}

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SamplingSettings,
        on_step: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        self.batches.append(len(seeds))
        latents = torch.stack([torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(s)) for s in seeds])
        # One by one: not even rounding may depend on the batch.
        with torch.no_grad():
            for _ in range(settings.steps):
                change = [
                    self.denoiser(x[None] + self.encode_prompts([p])["shift"])
                    for x, p in zip(latents, prompts, strict=True)
                ]
                latents = latents + 0.5 * torch.cat(change)
        return latents

    def pictures_at_once(self, settings: SamplingSettings, most: int) -> int | None:
        return None

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        return (latents.tanh() + 1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    def encode_images(self, images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1

    def draw_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(1, 10, (count,), generator=generator)

    def times_at(self, levels: torch.Tensor) -> torch.Tensor:
        return (levels * 10).long().clamp(1, 9)

    def noised(self, x0: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        share = times.view(-1, 1, 1, 1) / 10
        return (1 - share) * x0 + share * noise, noise

    def predict(self, noised: torch.Tensor, times: torch.Tensor, cond: Cond) -> torch.Tensor:
        return self.denoiser(noised + cond["shift"] + times.view(-1, 1, 1, 1) / 10)


class Poisoned(FakeModel):
    """A FakeModel whose policy prediction is NaN in training step `at`, counted over all rounds."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.count = at, 0

    def predict(self, noised, times, cond):
        raw = super().predict(noised, times, cond)
        trains = torch.is_grad_enabled() and len(noised) > 1  # the gradient self-test takes one sample
        self.count += trains
        return raw * float("nan") if trains and self.count == self.at + 1 else raw


def make_loop(
    folder: Path,
    model: TextToImage | None = None,
    settings: LoopSettings = SETTINGS,
    progress: Progress = silent,
    judges: Sequence = (),
    crew: Crew = ALONE,
) -> Loop:
    """A loop with a new model and adapter, as in a new process."""
    model = model or FakeModel()
    adapter = Adapter(model.denoiser, settings.adapter, seed=settings.sampling.seed)
    rewards = [Mean("fidelity", 0), Mean("alignment", 2)]
    return Loop(
        RunFolder(folder), model, adapter, PROMPTS, rewards, judges or [Mean("judge_fidelity", 1)], settings, progress,
        crew,
    )  # fmt: skip


def outcome(run: RunFolder, rounds: int = 2) -> dict:
    """All results in which two equal runs must agree."""
    sets = [*(f"round_{r}" for r in range(rounds)), *(f"evaluation_{r}" for r in range(rounds + 1))]
    return {
        "candidates": {s: run.candidates(s) for s in sets},
        "scores": {(s, n): run.scores(s, n) for s in sets for n in ("fidelity", "alignment", "judge_fidelity")},
        "pairs": {r: run.pairs(f"round_{r}") for r in range(rounds)},
        "training": {r: run.training(r) for r in range(rounds)},
        "facts": {k: run.fact(k) for k in ("rounds", "stopped", *(f"yield_round_{r}" for r in range(rounds)))},
    }


def adapters(run: RunFolder, rounds: int = 2) -> list[dict[str, torch.Tensor]]:
    """The adapters before the first and after every round."""
    return [run.load_state(f"adapter_{r}")[0] for r in range(rounds + 1)]


def difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference between two adapters."""
    assert left.keys() == right.keys()
    return max(float((left[k] - right[k]).abs().max()) for k in left)


class Nursery:
    """A process that forks one loop after another, so that imports run only once."""

    def __init__(self, folder: Path, pipeline: str = "", settings: LoopSettings = SETTINGS) -> None:
        command = [sys.executable, __file__, str(folder / "warm"), pipeline, settings.model_dump_json()]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", bufsize=1
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        return self.process.stdout.readline().rstrip("\n")

    def run(self, folder: Path, kill_after: int | None = None, delay: float = 0.0) -> tuple[int, list[str]]:
        """Run a loop in a folder; returns (exit status, progress lines).

        kill_after: kill the process `delay` seconds after this many progress lines.
        """
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        pid, events = 0, []
        while not (line := self._line()).startswith("exit "):
            assert line or self.process.poll() is None, "the nursery died"
            if line.startswith("pid "):
                pid = int(line.removeprefix("pid "))
            else:
                events.append(line)
            if pid and kill_after is not None and len(events) > kill_after:
                time.sleep(delay)
                os.kill(pid, signal.SIGKILL)
                kill_after = None
        return int(line.removeprefix("exit ")), events

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


def _pause(seconds: float, call: Callable) -> Callable:
    def paused(*args, **kwargs):
        time.sleep(seconds)
        result = call(*args, **kwargs)
        time.sleep(seconds)
        return result

    return paused


def _one(folder: str, model: TextToImage, settings: LoopSettings) -> None:
    """Run the loop in this process and print one line per progress call."""

    def tell(stage: str, done: int, total: int, preview: object = None, note: str = "") -> None:
        os.write(1, f"{stage}\n".encode())

    make_loop(Path(folder), model, settings, tell).go()


def main(warm_folder: str, pipeline: str, settings_json: str) -> None:
    """For every folder on stdin, fork a process that runs the loop there, so that imports run only once.

    It prints pid, stages and exit status. The loop is slowed down around renames and commits, where a kill is most
    dangerous.
    """
    torch.set_num_threads(1)
    settings = LoopSettings.model_validate_json(settings_json)
    make_model: Callable[[], TextToImage] = FakeModel
    if pipeline:
        from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline

        def make_model() -> TextToImage:
            return DiffusersTextToImage(load_pipeline(pipeline))

    scoring.BLOCK = 4
    make_loop(Path(warm_folder), make_model(), settings).go()
    files.os.replace = _pause(0.002, os.replace)
    RunFolder.set_pairs = _pause(0.02, RunFolder.set_pairs)
    RunFolder.add_training = _pause(0.01, RunFolder.add_training)
    RunFolder.add_scores = _pause(0.005, RunFolder.add_scores)
    os.write(1, b"ready\n")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _one(line.strip(), make_model(), settings)
            os._exit(0)
        os.write(1, f"pid {child}\n".encode())
        os.write(1, f"exit {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
