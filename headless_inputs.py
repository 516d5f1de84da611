"""What a config says of model family, subject, prompts and LoRA for candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .dpo_core.backends.diffusers.devices import pick_device as pick_device
from .dpo_core.concept import Concept, doubts
from .dpo_core.config import ConceptConfig, ModelConfig, RunConfig
from .dpo_core.errors import UserError
from .dpo_core.families import AUTO, adapter_for, family_of, sampling_for, training_for, unset_as_auto
from .dpo_core.prompt_text import plain_text
from .dpo_core.prompts import PromptSet, fill, read_templates, split
from .dpo_core.run.images import read_photos, read_subject, warn

if TYPE_CHECKING:
    from .dpo_core.backends.diffusers.loading import Model
    from .metrics.mask_model import MaskModel


def settled_config(config: RunConfig) -> RunConfig:
    """The config with the values of its model's family where settings are auto (families.py).

    For a class other than StableDiffusionPipeline a setting that the file does not name is auto too. Raises UserError
    when the model is not there or of a class that is not driven.
    """
    from .dpo_core.backends.diffusers.loading import pipeline_class
    from .dpo_core.backends.diffusers.pipelines import latent_sides

    name = pipeline_class(config.model.path, config.model.configs)
    family = family_of(name, "eps" if name.startswith(("StableDiffusionP", "StableDiffusionXL")) else "flow")
    if name != "StableDiffusionPipeline":
        config = config.model_copy(
            update={part: unset_as_auto(getattr(config, part), auto) for part, auto in AUTO.items()}
        )
    sampling = sampling_for(config.sampling, family)
    latent = latent_sides(name, sampling.width, sampling.height)
    train, adapter = training_for(config.train, family, latent), adapter_for(config.adapter, family)
    return config.model_copy(update={"sampling": sampling, "train": train, "adapter": adapter})


def mask_finder(given: ConceptConfig) -> MaskModel | None:
    """The model that makes masks, or None. Raises UserError beside a folder of masks, MetricsError as `MaskModel`."""
    from .metrics.mask_model import MaskModel

    if given.mask_model is None:
        return None
    if given.masks is not None:
        raise UserError(
            f"concept.masks ({given.masks}) and concept.mask_model ({given.mask_model.path}) are both set: masks are "
            "either given or made. Leave one out."
        )
    return MaskModel(given.mask_model.path, given.mask_model.kind)


def config_concept(config: RunConfig) -> Concept:
    """The concept of a config, with photos and masks at the sampling size. Raises UserError as `Concept` does."""
    given, size = config.concept, (config.sampling.width, config.sampling.height)
    held_out = read_photos(given.held_out, *size, "held-out photos") if given.held_out else None
    photos, masks = read_subject(given.references, given.masks, *size, find=mask_finder(given))
    concept = Concept(given.identifier, given.class_noun, photos, held_out, masks)
    for line in doubts(concept):
        warn(line)
    return concept


def config_prompts(config: RunConfig, concept: Concept) -> PromptSet:
    """The prompts of a config: its held-out prompts as given, or a split of its prompts."""
    lists = [read_templates(file) for file in (config.prompts, config.held_out_prompts) if file is not None]
    filled = [[fill(t, concept) for _, t in templates] for templates in lists]
    for line in plain_text(filled, concept):
        warn(line)
    if config.held_out_prompts is None:
        return split(lists[0], concept)
    return PromptSet(*(tuple(dict.fromkeys(prompts)) for prompts in filled))


def check_candidate_lora_file(given: ModelConfig) -> None:
    """Raises UserError for a LoRA for candidates that cannot be read, or beside a quantized model.

    Nothing is loaded.
    """
    from .dpo_core.backends.diffusers.loading import check_quantized
    from .dpo_core.backends.diffusers.loras import read_layers

    if given.candidate_lora is None:
        return
    read_layers(given.candidate_lora)
    check_quantized(given.path, given.configs, pick_device(given.device), given.quantize, True)
    if given.quantize is not None:
        raise UserError(
            f"model.candidate_lora is put on and taken off the weights, which model.quantize ({given.quantize}) does "
            "not allow. Leave one of them out."
        )


def put_candidate_lora(given: ModelConfig, model: Model) -> dict[str, str]:
    """Name the LoRA for candidates to the model; return what a run depends on by it, {} without one."""
    if given.candidate_lora is None:
        return {}
    model.set_candidate_lora(given.candidate_lora, given.candidate_lora_strength)
    return {"candidate_lora": model.candidate_lora}
