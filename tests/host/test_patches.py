"""What changes a MODEL's pictures beside its weights is part of its fingerprint, and nothing else is."""

from __future__ import annotations

import importlib

import pytest
import torch
from native_models import ADAPTER, DRAWING, PROMPTS, noise, random_live, random_model

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
    from dreambooth_dpo.dpo_core.backends.comfyui.live import KEY
    from dreambooth_dpo.dpo_core.backends.comfyui.patches import described_patches

    model = random_model()
    assert described_patches(model, KEY) == ""
    patched = node("nodes_freelunch", "FreeU", model, 1.1, 1.2, 0.9, 0.2)
    before = fingerprint_of(patched)
    backend_of(patched).sample(PROMPTS[:1], [0], DRAWING)
    assert described_patches(model, KEY) == "" and fingerprint_of(patched) == before


def test_the_toybox_has_the_fingerprint_of_earlier_versions(comfyui):
    """Else the candidates of earlier runs would be drawn again. 0.33 sets an object on every CLIP."""
    from dreambooth_dpo.dpo_core.backends.comfyui.fingerprints import fingerprint
    from dreambooth_dpo.toybox.native import native_toybox

    assert fingerprint(*native_toybox()) == "59221badce834fb8"


def test_options_of_the_tokenizer_change_the_fingerprint():
    from types import SimpleNamespace

    from dreambooth_dpo.dpo_core.backends.comfyui.fingerprints import fingerprint

    model, other = random_model(), random_model()
    clips = [SimpleNamespace(patcher=other, layer_idx=None, tokenizer_options=o) for o in ({}, {"a": 1}, {"a": 2})]
    assert len({fingerprint(model, clip) for clip in clips}) == 3


def backend_of(model, prompt: str = PROMPTS[0]):
    from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage

    backend = ComfyTextToImage(model, width=64, height=64, sampler="euler", scheduler="simple")
    width = backend.denoiser.middle_block[1].transformer_blocks[0].attn2.to_k.weight.shape[1]
    for number, text in enumerate(("", prompt)):
        backend._entries[text] = noise(1, 24, width, seed=number), {"pooled_output": None}
    return backend


@pytest.mark.slow
def test_an_adapter_acts_on_a_compiled_model_and_is_gone_afterwards():
    """Without a new trace by Dynamo the adapter had no effect on Flux, and half of it on SD 1.5."""
    helper = pytest.importorskip("comfy_api.torch_helpers.torch_compile")
    from dreambooth_dpo.dpo_core.backends.comfyui import with_live_adapter

    torch.compiler.reset()
    plain, live = random_model(), random_live(random_model())
    compiled = plain.clone()
    helper.set_torch_compile_wrapper(compiled, backend="eager")
    drawn = [
        backend_of(model).sample(PROMPTS[:1], [0], DRAWING)
        for pair in ((plain, compiled), (with_live_adapter(plain, live), with_live_adapter(compiled, live)))
        for model in pair
    ]
    assert float((drawn[2] - drawn[0]).abs().max()) > 1e-2
    for one, other in (drawn[:2], drawn[2:]):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    torch.testing.assert_close(backend_of(compiled).sample(PROMPTS[:1], [0], DRAWING), drawn[0], rtol=0, atol=1e-4)
    torch.compiler.reset()


def test_the_compute_type_of_a_patch_is_the_precision():
    model = random_model().clone()
    if not hasattr(model, "set_model_compute_dtype"):
        pytest.skip("this ComfyUI has no ModelComputeDtype")
    model.set_model_compute_dtype(torch.bfloat16)
    assert backend_of(model).precision == "bfloat16"


def test_a_patch_that_reads_the_noise_level_can_be_trained_with():
    model = node("nodes_model_downscale", "PatchModelAddDownscale", random_model(), 1, 2.0, 0.0, 0.35, True,
                 "bicubic", "bicubic")  # fmt: skip
    backend = backend_of(model)
    with backend.training(), torch.no_grad():
        cond = backend.encode_prompts(PROMPTS[:1])
        times = backend.draw_timesteps(1, torch.Generator().manual_seed(0))
        assert torch.isfinite(backend.predict(noise(1, *backend.latent_shape), times, cond)).all()


@pytest.mark.parametrize("name", ["EasyCache", "LazyCache"])
def test_a_step_cache_acts_while_drawing_and_not_in_training(name):
    """The host's caches leave out forwards of a sampler; in training each step would see another one's output."""
    plain = random_model()
    cached = node("nodes_easycache", f"{name}Node", plain, 1.0, 0.15, 0.95, False)
    counts, trained = [], []
    steps = DRAWING.model_copy(update={"steps": 16})
    for backend in (backend_of(plain), backend_of(cached)):
        forwards: list[int] = []
        # Inside the denoiser: one of the caches stands between it and its layers.
        hook = backend.denoiser.out.register_forward_hook(lambda *_, seen=forwards: seen.append(1))
        backend.sample(PROMPTS[:1], [0], steps)
        hook.remove()
        counts.append(len(forwards))
        with backend.training(), torch.no_grad():
            cond = backend.encode_prompts(PROMPTS[:1])
            times = backend.draw_timesteps(2, torch.Generator().manual_seed(0))
            given = [noise(1, *backend.latent_shape, seed=i) for i in range(2)]
            trained += [[backend.predict(x, t[None], cond) for x, t in zip(given, times, strict=True)]]
    assert counts[1] < counts[0], counts
    assert all(torch.equal(*one) for one in zip(*trained, strict=True))


def test_the_noise_scale_of_a_flow_model_is_in_its_noised_latents():
    """x = (1 - s) x0 + s k e, target k e - x0: for s 0.5, k 2, x0 1, e 3: 3.5 and 5."""
    from dreambooth_dpo.dpo_core.backends.comfyui.prediction import noised

    one = torch.ones(1, 1, 1, 1)
    x, target = noised("flow", one, 3 * one, torch.tensor([0.5]), 2.0)
    assert float(x) == 3.5 and float(target) == 5.0


def test_a_patch_that_cannot_be_trained_with_is_named():
    """FreeU_V2 writes into the activations that gradients are computed from."""
    from dreambooth_dpo.dpo_core.errors import UserError
    from dreambooth_dpo.dpo_core.training.adapter import Adapter
    from dreambooth_dpo.dpo_core.training.gradient_check import check_gradient

    backend = backend_of(VARIANTS["FreeU_V2"](random_model(), 1.0))
    assert backend.patches == ("FreeU_V2",) and backend_of(random_model()).patches == ()
    with backend.training():
        adapter = Adapter(backend.denoiser, ADAPTER, device=backend.device)
        with pytest.raises(UserError, match="The model is patched by FreeU_V2: train without"):
            check_gradient(backend, adapter, backend.encode_prompts(PROMPTS[:1]), noise(1, *backend.latent_shape))


class Quantized(torch.nn.Linear):
    """Stands for a GGUF loader's layer: its state dict has tensors without data, and one more than it has weights."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        for name in ("weight", "temp.weight"):
            destination[prefix + name] = torch.zeros_like(self.weight, device="meta")


def test_weights_that_the_state_dict_lacks_are_in_the_fingerprint():
    """GGUF loaders answer state_dict() with tensors of the device "meta"."""
    found = []
    for value in (0.0, 0.0, 0.5):
        model = random_model("sd")
        layer = Quantized(4, 4, bias=False)
        layer.weight.data.fill_(value)
        model.model.diffusion_model.extra = layer
        found.append(fingerprint_of(model))
    assert found[0] == found[1] != found[2]
