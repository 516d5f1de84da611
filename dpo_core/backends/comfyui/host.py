"""Access to ComfyUI's internals: one function per need, with the host versions where it changed.

ComfyUI's documented node API (comfy_api, folder_paths, and the methods of CLIP and VAE that nodes call) may be used
anywhere. Everything else goes through this module, `host_models` (models built without a checkpoint), `random_models`
(random weights) and `host_rope`. tests/host/test_host_contract.py runs every function on every supported host and
reports what a host has changed. docs/hosts.md lists the tested versions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ...errors import UserError
from .host_answers import answer_tokenizer, first_answer, question_tokens
from .host_check import NEWEST, OLDEST, check, memory_switches, missing, numbers, refusal, version
from .host_files import class_of_file
from .host_lora_patches import Patch, change_of, has_loras, lora_patches, weight_patches, with_lora_strength
from .host_loras import diffusers_places, lora_fit, lora_layers, read_lora_file, weight_changes
from .host_main_memory import in_main_memory, loaded, unload
from .host_models import checkpoint_model, image_codec, text_encoder, unet_model, with_lora, with_lora_on_both
from .host_patches import forget_compiled, hooks_heard, unet_names, with_injection, without_injection
from .host_quantized import full_precision, is_quantized, rounding_of_merge, rounds_inputs
from .host_rope import register_gradients
from .host_sampling import (
    check_interrupt,
    kinds,
    previewer,
    progress_bar,
    sample,
    sample_guided,
    sampler_names,
    scheduler_names,
)

__all__ = [
    "NEWEST",
    "OLDEST",
    "Patch",
    "answer_tokenizer",
    "cast_at_use",
    "change_of",
    "check",
    "check_interrupt",
    "checkpoint_model",
    "class_of_file",
    "denoise",
    "device",
    "diffusers_places",
    "first_answer",
    "for_training",
    "forget_compiled",
    "free_memory",
    "has_loras",
    "hooks_heard",
    "image_codec",
    "in_main_memory",
    "is_dynamic",
    "kinds",
    "load",
    "lora_fit",
    "lora_layers",
    "lora_patches",
    "managed",
    "memory_switches",
    "memory_system",
    "missing",
    "model_conds",
    "numbers",
    "own_tensors",
    "plain_copy",
    "previewer",
    "progress_bar",
    "question_tokens",
    "read_lora_file",
    "refusal",
    "register_gradients",
    "rounding_of_merge",
    "rounds_inputs",
    "sample",
    "sample_guided",
    "sampler_names",
    "scheduler_names",
    "text_encoder",
    "total_memory",
    "unet_model",
    "unet_names",
    "unload",
    "version",
    "weight_changes",
    "weight_patches",
    "with_injection",
    "with_lora",
    "with_lora_on_both",
    "with_lora_strength",
    "without_injection",
]

# --- memory and loading ---


def is_dynamic(patcher: Any) -> bool:
    """Whether the host streams the MODEL's weights to the device layer by layer into reused memory ("dynamic VRAM").

    The default on NVIDIA cards since 0.16; earlier hosts have no such method. Always False on a CPU.
    """
    return bool(getattr(patcher, "is_dynamic", bool)())


def device() -> torch.device:
    """The device that this host computes on."""
    import comfy.model_management as management

    return management.get_torch_device()


def memory_system() -> str:
    """ "dynamic" if this host loads a checkpoint's MODEL under dynamic VRAM on its own device, else "classic"."""
    import comfy.model_patcher as patchers

    core = getattr(patchers, "CoreModelPatcher", patchers.ModelPatcher)
    return "dynamic" if core is not patchers.ModelPatcher and device().type != "cpu" else "classic"


def plain_copy(patcher: Any) -> Any:
    """A MODEL with the same weights and patches that is loaded as a whole; the given one if it already is.

    Under dynamic VRAM the loader reads the file again (0.33: `clone(disable_dynamic=True)`, with the
    `cached_patcher_init` that core's loaders set on the MODEL). Raises UserError when the loader has set none.
    """
    if not is_dynamic(patcher):
        return patcher
    loader = getattr(patcher, "cached_patcher_init", None)
    if loader is None:
        raise UserError(
            f"this MODEL ({type(patcher.model).__name__}) was loaded for ComfyUI's dynamic VRAM, where gradients would "
            "be wrong, by a node that cannot load it a second time. Load it with Load Checkpoint or Load Diffusion "
            "Model, or start ComfyUI with --disable-dynamic-vram."
        )
    message = "DreamBooth DPO: dynamic VRAM is on: training loads a second copy of the model (%.1f GB) as a whole"
    logging.info(message, patcher.model_size() / 1e9)
    copy = patcher.clone(disable_dynamic=True)
    copy.parent = None  # else the host takes the original for loaded when the copy is gone
    return copy


def load(patcher: Any, memory: float, least: float | None = None, whole: bool = False) -> None:
    """Load the MODEL and leave `memory` bytes free for work (`least`: at least so many).

    `whole`: all layers must be on the device; raises UserError when they do not fit. (With --novram, layers stay in
    main memory in any case; see `cast_at_use`.)
    """
    import comfy.model_management as management

    try:
        management.load_models_gpu(
            [patcher], memory_required=memory, minimum_memory_required=least, force_full_load=whole
        )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the model ({patcher.model_size() / 1e9:.1f} GB) does not fit onto {patcher.load_device} as a whole, "
            "which training at this memory level needs. Set memory to auto or stream, use an fp8 or smaller version "
            "of it, close other programs that use the card's memory, or use a larger card."
        ) from error


def free_memory(patcher: Any, device: torch.device | None = None) -> float:
    """Bytes free for work on this device (None: the MODEL's), including memory that other models can be made to
    release.

    0.33: the MODEL's own method.
    """
    import comfy.model_management as management

    own = getattr(patcher, "get_free_memory", management.get_free_memory)
    return float(own(device or patcher.load_device)) - management.extra_reserved_memory()


def total_memory(device: torch.device) -> float:
    """Bytes of a device's memory, free or not."""
    import comfy.model_management as management

    return float(management.get_total_memory(device))


def managed(module: nn.Module) -> Any:
    """Wrap a torch module as a MODEL, which the host moves as a whole between its device and main memory."""
    import comfy.model_management as management
    from comfy.model_patcher import ModelPatcher

    return ModelPatcher(module, management.get_torch_device(), management.unet_offload_device())


def cast_at_use(model: nn.Module) -> list[nn.Module]:
    """Layers whose weights the host moves to the device only when they are called (low VRAM)."""
    return [module for module in model.modules() if hasattr(module, "prev_comfy_cast_weights")]


@contextmanager
def for_training(patcher: Any, memory: float, stream: bool | None = False) -> Iterator[Any]:
    """Load a MODEL with the same weights and patches for training: frozen and safe to differentiate.

    Yields the given MODEL or its `plain_copy`, loaded as a whole. With `stream`, or where that is None and the MODEL
    does not fit, yields a clone that is `in_main_memory`. What is no longer the given MODEL as it was loaded is
    unloaded at the end. Weights created in a node's inference mode are replaced by equal ordinary tensors.
    `in_training` (0.33) selects operators with gradients. Layers in main memory (low VRAM) get copies of their weights
    at each call: 0.33 streams them through buffers that the next layer overwrites, while autograd still needs them.
    Flags, functions and hooks are restored on exit, also after an error.
    Raises UserError as `plain_copy` and `load` do.
    """
    import comfy.model_management as management

    register_gradients()
    with ExitStack() as stack, torch.inference_mode(False), torch.enable_grad():
        plain = plain_copy(patcher)
        if plain is not patcher:
            stack.callback(unload, plain)
        plain = loaded(plain, partial(load, plain, memory, whole=True), stream, stack)
        plain.model.requires_grad_(False)
        own_tensors(plain.model)
        stack.enter_context(_own_casts(plain.model))
        stack.enter_context(full_precision(plain.model))
        if hasattr(management, "in_training"):
            stack.callback(setattr, management, "in_training", management.in_training)
            management.in_training = True
        yield plain


@contextmanager
def _own_casts(model: nn.Module) -> Iterator[None]:
    """Inside, each layer of `cast_at_use` gets weights that no other layer will overwrite."""
    changed: list[tuple[nn.Module, str, list]] = []
    try:
        for module in cast_at_use(model):
            for name in ("weight_function", "bias_function"):
                before = getattr(module, name, [])
                changed.append((module, name, before))
                setattr(module, name, [*before, torch.clone])
        yield
    finally:
        for module, name, before in changed:
            setattr(module, name, before)


def own_tensors(module: nn.Module) -> None:
    """Replace parameters and buffers created in inference mode by clones, since autograd refuses the originals.

    Quantized tensors (since 0.33) stay: they are dequantized in each forward, and the host could not unload a clone.
    """
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_inference() and not is_quantized(parameter):
                part._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_inference() and not is_quantized(buffer):
                part._buffers[name] = buffer.clone()


# --- prompts, sampling, prediction ---


def model_conds(model: Any, entry: Sequence[Any], latent_shape: Sequence[int], device: torch.device) -> dict[str, Any]:
    """The host's COND objects for one prompt, as its samplers make them.

    entry: (embedding [1, tokens, width], extras). latent_shape: (C, h, w).
    """
    import comfy.sampler_helpers
    import comfy.samplers

    converted = comfy.sampler_helpers.convert_cond([list(entry)])
    noise = torch.zeros(1, *latent_shape, device=device)
    # An empty latent, as in sampling; inpainting models read it.
    given = {"latent_image": noise, "denoise_mask": None}
    encoded = comfy.samplers.encode_model_conds(model.extra_conds, converted, noise, device, "positive", **given)[0][
        "model_conds"
    ]
    return {key: value.process_cond(batch_size=1, area=None) for key, value in encoded.items()}


def denoise(model: Any, noised: torch.Tensor, sigmas: torch.Tensor, options: dict, cond: dict) -> torch.Tensor:
    """Denoised latents [n, C, h, w] from one call of the model. noised: [n, C, h, w]; sigmas: [n].

    PyTorch's attention is used, since other implementations fail under autograd.
    """
    from comfy.ldm.modules.attention import attention_pytorch

    def attention(_chosen: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
        return attention_pytorch(*args, **kwargs)

    # apply_model writes into the options, so each call gets its own dict. Patches read the noise level from them.
    own = {"optimized_attention_override": attention, "cond_or_uncond": [0] * len(noised), "sigmas": sigmas}
    options = {**options, **own}
    return model.apply_model(noised, sigmas, transformer_options=options, **cond)
