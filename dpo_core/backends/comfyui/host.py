"""What of ComfyUI is internal to it: one function a need, and the versions where it changed.

Its documented node API (comfy_api, folder_paths, and the methods of CLIP and VAE that nodes call) is used where it is
needed. Everything else goes through here, through `host_models` (models built without a checkpoint), `random_models`
(random weights) and `host_rope`. tests/host/test_host_contract.py runs every entry on every supported host and says
what a host has changed. docs/hosts.md: what was run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ...errors import UserError
from .host_check import NEWEST, OLDEST, check, memory_switches, missing, numbers, refusal, version
from .host_models import checkpoint_model, image_codec, text_encoder, unet_model, with_lora
from .host_patches import hooks_heard, unet_names, with_injection, without_injection
from .host_rope import register_gradients
from .host_sampling import (
    check_interrupt,
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
    "cast_at_use",
    "check",
    "check_interrupt",
    "checkpoint_model",
    "denoise",
    "device",
    "for_training",
    "free_memory",
    "hooks_heard",
    "image_codec",
    "is_dynamic",
    "kinds",
    "load",
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
    "refusal",
    "register_gradients",
    "sample",
    "sample_guided",
    "sampler_names",
    "scheduler_names",
    "text_encoder",
    "unet_model",
    "unet_names",
    "unload",
    "version",
    "with_injection",
    "with_lora",
    "without_injection",
]

# --- memory and loading ---


def is_dynamic(patcher: Any) -> bool:
    """Whether its weights are brought to the device layer by layer, into memory that is used again ("dynamic VRAM").

    The default on NVIDIA cards since 0.16; hosts before it have no such method. Always False on a CPU.
    """
    return bool(getattr(patcher, "is_dynamic", bool)())


def device() -> torch.device:
    """The device that this host computes on."""
    import comfy.model_management as management

    return management.get_torch_device()


def memory_system() -> str:
    """ "dynamic" where this host would load a checkpoint's MODEL that way on its own device, else "classic"."""
    import comfy.model_patcher as patchers

    core = getattr(patchers, "CoreModelPatcher", patchers.ModelPatcher)
    return "dynamic" if core is not patchers.ModelPatcher and device().type != "cpu" else "classic"


def plain_copy(patcher: Any) -> Any:
    """A MODEL of the same weights and patches that is loaded as a whole; the given one where that is so already.

    Under dynamic VRAM the loader reads the file once more (0.33: `clone(disable_dynamic=True)`, by the
    `cached_patcher_init` that core's loaders leave on the MODEL). Raises UserError for a MODEL whose loader left none.
    """
    if not is_dynamic(patcher):
        return patcher
    loader = getattr(patcher, "cached_patcher_init", None)
    if loader is None:
        raise UserError(
            f"this MODEL ({type(patcher.model).__name__}) was loaded for ComfyUI's dynamic VRAM, where gradients would be wrong, by "
            "a node that cannot load it a second time. Load it with Load Checkpoint or Load Diffusion Model, or start ComfyUI "
            "with --disable-dynamic-vram."
        )
    said = "DreamBooth DPO: dynamic VRAM is on: training loads the model (%.1f GB) once more, as a whole, and drops it afterwards"
    logging.info(said, patcher.model_size() / 1e9)
    copy = patcher.clone(disable_dynamic=True)
    copy.parent = None  # else the host would take the MODEL it came from for loaded, once the copy is gone
    return copy


def unload(patcher: Any) -> None:
    """Take this MODEL, and no other one, off the device and off the host's list of loaded models."""
    import comfy.model_management as management

    others = [loaded for loaded in management.current_loaded_models if loaded.model is not patcher]
    management.free_memory(1e30, patcher.load_device, keep_loaded=others)


def load(patcher: Any, memory: float, least: float | None = None, whole: bool = False) -> None:
    """Have the MODEL loaded beside `memory` bytes that work will take (at the least `least`); `whole`: no layer may
    stay behind.

    Raises UserError where a whole one does not fit. (--novram leaves layers behind whatever is asked: see
    `cast_at_use`.)
    """
    import comfy.model_management as management

    try:
        management.load_models_gpu(
            [patcher], memory_required=memory, minimum_memory_required=least, force_full_load=whole
        )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the model ({patcher.model_size() / 1e9:.1f} GB) does not fit onto {patcher.load_device} as a whole, which training "
            "needs. Use an fp8 or smaller version of it, close what else takes the card's memory, or take a larger card."
        ) from error


def free_memory(patcher: Any) -> float:
    """Bytes that this MODEL's device has left for work, what other models can be made to leave included (0.33: the
    MODEL's own method).
    """
    import comfy.model_management as management

    own = getattr(patcher, "get_free_memory", management.get_free_memory)
    return float(own(patcher.load_device)) - management.extra_reserved_memory()


def managed(module: nn.Module) -> Any:
    """A torch module as a MODEL that the host moves between its device and main memory, loaded as a whole."""
    import comfy.model_management as management
    from comfy.model_patcher import ModelPatcher

    return ModelPatcher(module, management.get_torch_device(), management.unet_offload_device())


def cast_at_use(model: nn.Module) -> list[nn.Module]:
    """Layers whose weights the host brings to the device when they are called, and not before (low VRAM)."""
    return [module for module in model.modules() if hasattr(module, "prev_comfy_cast_weights")]


@contextmanager
def for_training(patcher: Any, memory: float) -> Iterator[Any]:
    """Inside, a MODEL of the same weights and patches is loaded, frozen, and safe to differentiate; it is what the
    context gives.

    It is the given one, or its `plain_copy`, dropped at the end. Weights that a node's inference mode made are replaced
    by equal ordinary tensors. `in_training` (0.33) selects operators with gradients. Layers that stay behind (low VRAM)
    give copies of their own: 0.33 brings them through buffers that the next layer writes over, and autograd would keep
    these. Flags, functions and hooks are put back in any case.
    """
    import comfy.model_management as management

    register_gradients()
    with ExitStack() as stack, torch.inference_mode(False), torch.enable_grad():
        plain = plain_copy(patcher)
        if plain is not patcher:
            stack.callback(unload, plain)
        load(plain, memory, whole=True)
        plain.model.requires_grad_(False)
        own_tensors(plain.model)
        stack.enter_context(_own_casts(plain.model))
        if hasattr(management, "in_training"):
            stack.callback(setattr, management, "in_training", management.in_training)
            management.in_training = True
        yield plain


@contextmanager
def _own_casts(model: nn.Module) -> Iterator[None]:
    """Inside, each layer of `cast_at_use` gets weights that no other layer will write over."""
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
    """Replace parameters and buffers that were made under inference mode by clones of the same values: autograd refuses
    the former.

    Quantized tensors (0.33 on) stay: what they compute with is made anew in each forward, and the host could not unload
    a clone.
    """
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_inference() and not _quantized(parameter):
                part._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_inference() and not _quantized(buffer):
                part._buffers[name] = buffer.clone()


def _quantized(tensor: torch.Tensor) -> bool:
    return any(kind.__name__ == "QuantizedTensor" for kind in (*type(tensor).__mro__, *type(tensor.data).__mro__))


# --- prompts, drawing, prediction ---


def model_conds(model: Any, entry: Sequence[Any], latent_shape: Sequence[int], device: torch.device) -> dict[str, Any]:
    """The host's COND objects for one prompt, as its samplers make them for one picture. entry: (embedding, extras)."""
    import comfy.sampler_helpers
    import comfy.samplers

    converted = comfy.sampler_helpers.convert_cond([list(entry)])
    noise = torch.zeros(1, *latent_shape, device=device)
    # With an empty latent, as in sampling: inpainting models look at it.
    given = {"latent_image": noise, "denoise_mask": None}
    found = comfy.samplers.encode_model_conds(model.extra_conds, converted, noise, device, "positive", **given)[0][
        "model_conds"
    ]
    return {key: value.process_cond(batch_size=1, area=None) for key, value in found.items()}


def kinds() -> dict[str, type]:
    """The host's classes of the kinds of prediction that can be trained: "eps", "v", "flow"."""
    import comfy.model_sampling as sampling

    return {"eps": sampling.EPS, "v": sampling.V_PREDICTION, "flow": sampling.CONST}


def denoise(model: Any, noised: torch.Tensor, sigmas: torch.Tensor, options: dict, cond: dict) -> torch.Tensor:
    """The denoised latents [n, C, h, w] by one call of the model, by PyTorch's attention: others fail under autograd."""
    from comfy.ldm.modules.attention import attention_pytorch

    def attention(_chosen: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
        return attention_pytorch(*args, **kwargs)

    # apply_model writes into the options: a fresh dict each time.
    options = {**options, "optimized_attention_override": attention, "cond_or_uncond": [0] * len(noised)}
    return model.apply_model(noised, sigmas, transformer_options=options, **cond)
