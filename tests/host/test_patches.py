"""What changes a MODEL's pictures beside its weights is part of its fingerprint, and nothing else is."""

from __future__ import annotations

import importlib

import pytest
import torch
from native_models import DRAWING, PROMPTS, noise, random_model

pytestmark = pytest.mark.usefixtures("comfyui")


def node(module: str, name: str, model, *args):
    """The MODEL that a stock node gives, of either node API."""
    kind = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
    if hasattr(kind, "define_schema"):
        given = kind.execute(model, *args)
        return getattr(given, "args", given)[0]
    return getattr(kind(), kind.FUNCTION)(model, *args)[0]


def lora(model, scale: float) -> dict[str, torch.Tensor]:
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    width = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1.to_q.weight.shape[0]
    return {
        f"{name}.lora_up.weight": scale * noise(width, 2),
        f"{name}.lora_down.weight": noise(2, width, seed=1),
        f"{name}.alpha": torch.tensor(2.0),
    }


def bypassed(model, strength: float, scale: float = 0.1):
    import comfy.sd

    if not hasattr(comfy.sd, "load_bypass_lora_for_models"):
        pytest.skip("this ComfyUI has no LoRA loader in bypass mode")
    return comfy.sd.load_bypass_lora_for_models(model, None, lora(model, scale), strength, 0.0)[0]


VARIANTS = {
    "FreeU": lambda m, x: node("nodes_freelunch", "FreeU", m, 1.1 * x, 1.2, 0.9, 0.2),
    "FreeU_V2": lambda m, x: node("nodes_freelunch", "FreeU_V2", m, 1.3, 1.4, 0.9 * x, 0.2),
    "RescaleCFG": lambda m, x: node("nodes_model_advanced", "RescaleCFG", m, 0.7 * x),
    "PerturbedAttentionGuidance": lambda m, x: node("nodes_pag", "PerturbedAttentionGuidance", m, 3.0 * x),
    "HyperTile": lambda m, x: node("nodes_hypertile", "HyperTile", m, int(256 * x), 2, 0, False),
    "bypass LoRA, strength": lambda m, x: bypassed(m, 0.5 * x),
    "bypass LoRA, weights": lambda m, x: bypassed(m, 1.0, 0.1 * x),
}


def fingerprint_of(model) -> str:
    from dreambooth_dpo.dpo_core.backends.comfyui.fingerprints import fingerprint

    return fingerprint(model)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_patch_and_its_values_change_the_fingerprint(name):
    make, model = VARIANTS[name], random_model()
    found = [fingerprint_of(m) for m in (model, make(model, 1.0), make(model, 1.0), make(model, 1.5))]
    assert found[1] == found[2] and len(set(found)) == 3, found


def test_a_plain_model_has_no_patches_and_sampling_adds_none():
    from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage
    from dreambooth_dpo.dpo_core.backends.comfyui.live import KEY
    from dreambooth_dpo.dpo_core.backends.comfyui.patches import described_patches

    model = random_model()
    assert described_patches(model, KEY) == ""
    patched = node("nodes_freelunch", "FreeU", model, 1.1, 1.2, 0.9, 0.2)
    before = fingerprint_of(patched)
    backend = ComfyTextToImage(patched, width=64, height=64, sampler="euler", scheduler="simple")
    tensor = noise(1, 24, backend.denoiser.middle_block[1].transformer_blocks[0].attn2.to_k.weight.shape[1])
    backend._entries |= {prompt: (tensor, {"pooled_output": None}) for prompt in ("", PROMPTS[0])}
    backend.sample(PROMPTS[:1], [0], DRAWING)
    assert described_patches(model, KEY) == "" and fingerprint_of(patched) == before


def test_options_of_the_tokenizer_change_the_fingerprint():
    from types import SimpleNamespace

    from dreambooth_dpo.dpo_core.backends.comfyui.fingerprints import fingerprint

    model, other = random_model(), random_model()
    clips = [SimpleNamespace(patcher=other, layer_idx=None, tokenizer_options=o) for o in ({}, {"a": 1}, {"a": 2})]
    assert len({fingerprint(model, clip) for clip in clips}) == 3
