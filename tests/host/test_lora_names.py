"""Names of layers in LoRA files: kohya's own, and those of earlier versions, which are still read."""

from __future__ import annotations

import pytest
import torch
from native_models import ADAPTER, adapter_state, random_model

from dreambooth_dpo.dpo_core.backends.comfyui import adapter_of_lora, lora_prefixes, prefixes_in
from dreambooth_dpo.dpo_core.backends.comfyui.live import former_prefixes
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import lora_tensors

pytestmark = pytest.mark.usefixtures("comfyui")
KINDS = ("sd", "sdxl", "flux")


@pytest.fixture(params=KINDS)
def made(request):
    """(MODEL, adapter with random weights)"""
    model = random_model(request.param)
    with torch.inference_mode(False):
        adapter = Adapter(model.model.diffusion_model, ADAPTER)
        adapter.load(adapter_state(adapter))
    return request.param, model, adapter


def test_layers_have_kohyas_names(made):
    """SD 1 and 2: diffusers' names. Others: the model's own, with underscores for points."""
    kind, model, adapter = made
    named = lora_prefixes(model.model, adapter.layers)
    own = {name: "lora_unet_" + name.replace(".", "_") for name in adapter.layers}
    assert (named == own) == (kind != "sd")
    assert len(set(named.values())) == len(named) and all(n.startswith("lora_unet_") for n in named.values())


@pytest.mark.parametrize("names", [lora_prefixes, former_prefixes])
def test_a_lora_is_recognised_under_its_names_of_today_and_before(made, names):
    _, model, adapter = made
    tensors = lora_tensors(adapter, names(model.model, adapter.layers))
    assert prefixes_in(tensors, model.model, adapter.layers) == names(model.model, adapter.layers)
    found = adapter_of_lora(model, tensors, "the lora")
    assert found.settings.rank == ADAPTER.rank and found.settings.alpha == ADAPTER.alpha
    state = adapter.state()
    assert found.state.keys() == state.keys() and all(torch.equal(v, state[k]) for k, v in found.state.items())


@pytest.mark.parametrize("names", [lora_prefixes, former_prefixes])
def test_the_host_loads_every_layer_under_either_name(made, names):
    import comfy.sd

    _, model, adapter = made
    tensors = lora_tensors(adapter, names(model.model, adapter.layers))
    patched = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)[0]
    assert len(patched.patches) == len(adapter.layers)
