"""A toybox concept as ComfyUI objects: models, photos, masks and prompts, optionally personalized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..dpo_core.progress import Progress
from .concepts import ToyConcept, concept_from_seed
from .defaults import TOY_PERSONALIZE
from .epochs import adapter_settings, points, train_epochs
from .prompts import train_and_held_out


def load_native(seed: int, steps: int, folder: Path, progress: Progress) -> tuple[Any, ...]:
    """Load MODEL, CLIP, VAE, photos, masks, words and prompts of a toybox concept.

    Returns MODEL, CLIP, VAE, references and held-out photos (IMAGE [5, 64, 64, 3]), masks (MASK [5, 64, 64]),
    identifier, class noun, and the training and held-out prompts (one template per line). With `steps` > 0 the MODEL
    has a DreamBooth LoRA of that many steps, which is trained once and stored in `folder`.
    """
    import torch

    from .native import native_toybox

    toy = concept_from_seed(seed)
    model, clip, vae = native_toybox()
    if steps:
        model = _personalized(
            model, clip, vae, toy, steps, folder / f"concept_{seed}_{steps}_steps.safetensors", progress
        )
    pictures = [torch.from_numpy(p).float() / 255 for p in (toy.references, toy.held_out, toy.masks)]
    prompts = ["\n".join(part) for part in train_and_held_out(toy)]
    return (model, clip, vae, *pictures, toy.identifier, toy.noun, *prompts)


def _personalized(model: Any, clip: Any, vae: Any, toy: ToyConcept, steps: int, path: Path, progress: Progress) -> Any:
    """The MODEL with the concept's DreamBooth LoRA, loaded by ComfyUI's own loader; trained first if missing."""
    from ..dpo_core.backends.comfyui import host
    from ..dpo_core.training.lora_files import read_lora

    if not path.is_file():
        _train((model, clip, vae), toy, {steps: path}, progress)
    return host.with_lora(model, read_lora(path))


def native_epochs(
    parts: tuple[Any, Any, Any], seed: int, steps: int, epochs: int, folder: Path, progress: Progress
) -> list[Path]:
    """LoRA files of one personalization of the MODEL, CLIP and VAE `parts`, saved at `epochs` points of `steps`.

    Trained where a file is missing. Raises UserError for more epochs than steps.
    """
    toy = concept_from_seed(seed)
    stops = points(steps, epochs)
    files = {stop: folder / f"toybox_{seed}-step{stop:04d}.safetensors" for stop in stops}
    if not all(file.is_file() for file in files.values()):
        _train(parts, toy, files, progress)
    return list(files.values())


def _train(parts: tuple[Any, Any, Any], toy: ToyConcept, files: dict[int, Path], progress: Progress) -> None:
    """Personalize once and write a LoRA file after each number of steps."""
    from ..dpo_core.backends.comfyui import ComfyTextToImage, diffusers_names, lora_prefixes
    from ..dpo_core.training.adapter import Adapter
    from ..dpo_core.training.lora_files import lora_tensors, write_lora

    model, settings = parts[0], adapter_settings()
    backend = ComfyTextToImage(*parts, 64, 64)
    with backend.training():
        names = diffusers_names(model.model)
        adapter = Adapter(backend.denoiser, settings, TOY_PERSONALIZE.seed, backend.device, names)

        def save(step: int) -> None:
            tensors = lora_tensors(adapter, lora_prefixes(model.model, adapter.layers))
            about = {"dreambooth_dpo.concept": toy.describe()}
            write_lora(tensors, files[step], settings.rank, settings.alpha, about)

        train_epochs(backend, adapter, toy, list(files), save, progress)
