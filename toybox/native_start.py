"""A toybox concept as ComfyUI objects: models, photos, masks and prompts, optionally personalized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..dpo_core.progress import Progress
from .concepts import ToyConcept, concept_from_seed
from .defaults import TOY_PERSONALIZE
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
    from ..dpo_core.backends.comfyui import ComfyTextToImage, diffusers_names, host, lora_prefixes
    from ..dpo_core.settings import AdapterSettings
    from ..dpo_core.training.adapter import Adapter
    from ..dpo_core.training.dreambooth import Personalizer
    from ..dpo_core.training.lora_files import lora_tensors, read_lora, write_lora

    if not path.is_file():
        settings = TOY_PERSONALIZE.model_copy(update={"steps": steps})
        backend = ComfyTextToImage(model, clip, vae, 64, 64)
        with backend.training():
            adapter = Adapter(
                backend.denoiser,
                AdapterSettings(rank=settings.rank, alpha=settings.rank, targets="all"),
                settings.seed,
                backend.device,
                diffusers_names(model.model),
            )
            trainer = Personalizer(backend, adapter, toy.to_concept(), settings)
            trainer.train(0, steps, lambda step, loss: progress("personalize", step, steps, note=f"loss {loss:.4f}"))
            tensors = lora_tensors(adapter, lora_prefixes(model.model, adapter.layers))
        write_lora(tensors, path, settings.rank, float(settings.rank), {"dreambooth_dpo.concept": toy.describe()})
    return host.with_lora(model, read_lora(path))
