"""One personalization of a toybox concept saved at several points, from briefly trained to overtrained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..dpo_core.errors import UserError
from ..dpo_core.progress import Progress, silent
from ..dpo_core.protocols import TextToImage
from ..dpo_core.settings import AdapterSettings, PersonalizeSettings
from ..dpo_core.training.adapter import Adapter
from ..dpo_core.training.dreambooth import Personalizer
from ..dpo_core.training.lora_files import save_lora
from .concepts import ToyConcept
from .defaults import TOY_PERSONALIZE


def points(steps: int, epochs: int) -> tuple[int, ...]:
    """The steps after which a LoRA is saved, evenly spaced, the last at the end: (480, 4) -> 120, 240, 360, 480.

    Raises UserError for more epochs than steps.
    """
    if epochs > steps:
        raise UserError(f"{epochs} epochs of {steps} steps in all: an epoch needs a step. Use fewer epochs.")
    return tuple(round(steps * (i + 1) / epochs) for i in range(epochs))


def adapter_settings(settings: PersonalizeSettings = TOY_PERSONALIZE) -> AdapterSettings:
    """The adapter of a toybox personalization."""
    return AdapterSettings(rank=settings.rank, alpha=settings.rank, targets="all")


def train_epochs(
    model: TextToImage,
    adapter: Adapter,
    toy: ToyConcept,
    stops: Sequence[int],
    save: Callable[[int], None],
    progress: Progress = silent,
) -> None:
    """Personalize the adapter to the concept and call `save(steps done)` at each of `stops`, which rise.

    An epoch equals a personalization of that many steps: every random draw depends on the seed and the step alone.
    """
    trainer = Personalizer(model, adapter, toy.to_concept(), TOY_PERSONALIZE)

    def tell(step: int, loss: float) -> None:
        progress("personalize", step, stops[-1], note=f"loss {loss:.4f}")

    for first, last in zip((0, *stops), stops, strict=False):
        trainer.train(first, last, tell)
        save(last)


def epoch_files(toy: ToyConcept, folder: Path, stops: Sequence[int], progress: Progress = silent) -> list[Path]:
    """LoRA files of these points for the diffusers pipeline, trained where one is missing."""
    from ..dpo_core.backends.diffusers.model import DiffusersTextToImage
    from .run import toy_pipeline

    files = {stop: folder / f"step_{stop:04d}.safetensors" for stop in stops}
    if not all(file.is_file() for file in files.values()):
        model = DiffusersTextToImage(toy_pipeline())
        adapter = Adapter(model.denoiser, adapter_settings(), seed=TOY_PERSONALIZE.seed)
        train_epochs(model, adapter, toy, stops, lambda step: save_lora(adapter, files[step], {}), progress)
    return list(files.values())
