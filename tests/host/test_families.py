"""Architectures of ComfyUI: some of benchmarks.families by its own check; `-m slow` takes all of them."""

from __future__ import annotations

import pytest

from dreambooth_dpo.benchmarks.families.check import CLOSE, LEVELS, check, passes
from dreambooth_dpo.benchmarks.families.zoo import ZOO

pytestmark = pytest.mark.usefixtures("comfyui")
FEW = ("SDXL", "SD3.5-medium", "Flux2-klein", "Z-Image", "Qwen-Image", "Krea2", "Anima", "HiDream", "PixelDiT")
"""Tensors of one frame, prompts without padding, values beside tensors, blocks of unknown names, in-place writes."""
REFUSED = ("HiDreamO1",)
FORMS = ("float8_e4m3fn", "int8_tensorwise", "nvfp4", "mxfp8", "asym_w4a8_int8")


def right(name: str) -> None:
    row = check(name)
    if "absent" in row:
        pytest.skip(row["absent"])
    assert passes(row), row
    assert row["hooks"]["unused"] == []


@pytest.mark.parametrize("name", FEW)
def test_an_architecture_draws_trains_and_saves(name: str):
    right(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ZOO if name not in (*FEW, *REFUSED)])
def test_every_other_architecture_draws_trains_and_saves(name: str):
    right(name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["Flux-dev", "Z-Image"])
def test_a_quantized_model_trains_right_and_is_unloaded(name: str, form: str):
    """Its LoRA is right through the loader in bypass mode; the other one rounds the merged weights."""
    import comfy.model_management as management

    row = check(name, form)
    if "absent" in row:
        pytest.skip(row["absent"])
    assert row["quantized"] > 1
    assert all(row[column] < CLOSE for column in ("draws", "prompts", "bypass")), row
    assert all(isinstance(row[level], dict) for level in LEVELS), row
    assert row["lora"] > 0.05
    management.unload_all_models()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_by_name(name: str):
    row = check(name)
    if "absent" in row:
        pytest.skip(row["absent"])
    assert row["refused"].startswith(f"{name} cannot be trained: ")


def test_int8_layers_that_the_host_fuses_are_not_passed_over_in_silence():
    """WAN's ffn.2 in int8: 0.33 multiplies by its weights without a call of the layer, so that no hook runs."""
    from dreambooth_dpo.benchmarks.families.zoo import NotHere, build, quantize
    from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage, LiveAdapter, host, with_live_adapter
    from dreambooth_dpo.dpo_core.errors import UserError
    from dreambooth_dpo.dpo_core.settings import AdapterSettings, SamplingSettings
    from dreambooth_dpo.dpo_core.training.adapter import Adapter

    try:
        patcher, clip, vae, side = build("WAN21_T2V")
        patcher, _ = quantize("WAN21_T2V", patcher, "int8_tensorwise")
    except NotHere as missing:
        pytest.skip(str(missing))
    settings = AdapterSettings(rank=2, alpha=2)
    adapter = Adapter(patcher.model.diffusion_model, settings)
    for layer in adapter.policy.values():
        layer.up.data.fill_(0.01)
    model = with_live_adapter(patcher, LiveAdapter(adapter.state(), settings))
    drawing = SamplingSettings(steps=1, guidance=1.0, candidates_per_prompt=2)
    backend = ComfyTextToImage(model, clip, vae, side, side, "euler", "simple")
    if host.numbers(host.version()) >= (0, 40):
        backend.sample(["a dog"], [0], drawing)
        return
    with pytest.raises(UserError, match=r"does not call \d+ int8 layers .*ffn\.2.*fp8 or 16-bit"):
        backend.sample(["a dog"], [0], drawing)


@pytest.mark.parametrize("form", [None, "float8_e4m3fn", "nvfp4"])
def test_the_rounding_of_a_merged_lora_is_measured(form):
    """A LoRA of 1 % of the weights, merged into fp8, is off by about its own size; into fp32 not at all."""
    import inspect

    from comfy.model_patcher import ModelPatcher

    from dreambooth_dpo.benchmarks.families.zoo import NotHere, build, quantize
    from dreambooth_dpo.dpo_core.backends.comfyui import host, lora_prefixes
    from dreambooth_dpo.dpo_core.settings import AdapterSettings
    from dreambooth_dpo.dpo_core.training.adapter import Adapter
    from dreambooth_dpo.dpo_core.training.lora_files import lora_tensors

    try:
        patcher = build("Flux-dev")[0]
        if form:
            patcher, _ = quantize("Flux-dev", patcher, form)
    except NotHere as missing:
        pytest.skip(str(missing))
    adapter = Adapter(patcher.model.diffusion_model, AdapterSettings(rank=2, alpha=2))
    for layer in adapter.policy.values():
        layer.up.data.normal_(0, 0.01)
    found = host.rounding_of_merge(patcher, lora_tensors(adapter, lora_prefixes(patcher.model, adapter.layers)))
    if form is None or "return_weight" not in inspect.signature(ModelPatcher.patch_weight_to_device).parameters:
        assert found is None
    else:
        assert 0.2 < found < 50, found
