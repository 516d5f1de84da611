"""The contract of dpo_core/backends/comfyui/host.py with ComfyUI: a failure names what the host has changed."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
from contracts import changed
from native_models import noise, random_model
from torch import nn

from dreambooth_dpo.dpo_core.backends.comfyui import host, host_check, host_rope
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import SamplingSettings
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")
HERE = f"ComfyUI {host.version()}"
DRAWING = SamplingSettings(steps=3, guidance=2.0, guidance_until=0.5, width=64, height=64)


@pytest.fixture(scope="module")
def toybox(comfyui):
    return native_toybox()


def test_every_entry_has_a_contract():
    """Every entry has a test here or in a file beside it, whose name contains the entry's name."""
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_host_contract*.py")]
    tests = "\n".join(name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.M))
    untested = [
        name for name in host.__all__ if name.islower() and f"_{name}_" not in f"{tests}\n".replace("\n", "_\n")
    ]
    assert untested == []


# --- which host this is ---


def test_version_and_numbers_of_this_host(comfyui):
    assert (
        host.numbers("0.3.64") == (0, 3, 64) < host.numbers("0.33.0") < host.numbers("1.0")
        and host.numbers("unknown") == ()
    )
    said = (comfyui / "comfyui_version.py").read_text(encoding="utf-8")
    assert f'"{host.version()}"' in said, changed("comfyui_version.__version__ is not what its file says")


def test_missing_refusal_and_check_on_this_host():
    assert host.missing() == [], changed("names that host_check._NEEDED lists are gone")
    assert host.refusal() is None
    host.check()


@pytest.mark.parametrize(
    "age, words", [("0.3.50", "needs ComfyUI 0.3.64 or newer, and this is 0.3.50: update ComfyUI")]
)
def test_an_older_host_is_refused_in_one_line(age, words, monkeypatch):
    monkeypatch.setattr(host_check, "version", lambda: age)
    assert words in host.refusal() and "\n" not in host.refusal()
    monkeypatch.setattr(host_check, "_checked", False)
    with pytest.raises(UserError, match=words):
        host.check()


def test_a_host_without_an_internal_is_refused_by_its_name(monkeypatch):
    monkeypatch.setattr(
        host_check, "_NEEDED", (*host_check._NEEDED, "comfy.samplers:NoSuchThing", "comfy.no_such_module:Anything")
    )
    assert host.missing() == ["comfy.samplers:NoSuchThing", "comfy.no_such_module:Anything"]
    assert "has no comfy.samplers:NoSuchThing, comfy.no_such_module:Anything: update DreamBooth DPO" in host.refusal()


# --- memory and loading ---


def test_is_dynamic_and_memory_system_on_a_cpu(toybox):
    assert not host.is_dynamic(toybox[0]), changed("a MODEL on a CPU is streamed")
    assert host.memory_system() == "classic", changed("dynamic VRAM on a CPU")


def test_device_is_the_one_that_was_asked_for(comfyui):
    assert host.device() == torch.device("cpu"), changed("--cpu, or get_torch_device")


def test_memory_switches_are_those_of_this_host(comfyui):
    found = host.memory_switches()
    assert found.get("--cpu", True), changed("the switch --cpu is not seen")
    if host.numbers(host.version()) >= (0, 33):
        assert {"--disable-dynamic-vram", "--highvram", "--gpu-only", "--novram", "--cpu"} == set(found), changed(
            "switches of dynamic VRAM"
        )
        assert [name for name, given in found.items() if given] == ["--cpu"]


def test_plain_copy_of_a_plain_model_is_itself(toybox):
    assert host.plain_copy(toybox[0]) is toybox[0]
    if hasattr(toybox[0], "is_dynamic"):
        named = inspect.signature(type(toybox[0]).clone).parameters
        assert "disable_dynamic" in named, changed("ModelPatcher.clone takes no disable_dynamic")


def test_plain_copy_by_the_loader_that_the_model_names(toybox):
    """The loader is called as ComfyUI 0.33 and its own trainer call it, for a deep clone."""
    function, arguments = toybox[0].cached_patcher_init
    again = function(*arguments, disable_dynamic=True)
    assert again.model is not toybox[0].model and type(again) is type(toybox[0])
    if "force_deepcopy" in inspect.signature(type(again).clone).parameters:
        deep = toybox[0].clone(force_deepcopy=True)
        assert deep.model is not toybox[0].model, changed("clone(force_deepcopy=True) shares the weights")


def test_load_and_unload_one_model_alone(toybox):
    import comfy.model_management as management

    other = random_model()
    for model in (toybox[0], other):
        host.load(model, 0, whole=True)
    host.unload(other)
    left = [loaded.model for loaded in management.current_loaded_models]
    assert toybox[0] in left and other not in left, changed(
        "free_memory(keep_loaded=...) unloads others, or not the one"
    )


def test_load_says_that_a_model_does_not_fit(toybox, monkeypatch):
    import comfy.model_management as management

    def full(*_args, **_more):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(management, "load_models_gpu", full)
    with pytest.raises(UserError, match=r"the model \(0\.0 GB\) does not fit onto cpu as a whole"):
        host.load(toybox[0], 0, whole=True)


def test_total_memory_and_free_memory_is_a_number_of_bytes(toybox):
    assert 1e6 < host.free_memory(toybox[0]) < 1e15, changed("get_free_memory does not give bytes")
    total = host.total_memory(toybox[0].load_device)
    assert host.free_memory(toybox[0]) < total < 1e15, changed("get_total_memory does not give bytes")


def test_managed_modules_are_loaded_where_they_work(comfyui):
    class Small(nn.Module):
        """Like the host's own classes, it stores a device on the module that it manages."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

    patcher = host.managed(Small())
    host.load(patcher, 0, whole=True)
    assert patcher.model.inner.weight.device == patcher.load_device, changed(
        "a managed module is not on its load device"
    )


def test_cast_at_use_marks_layers_that_stay_behind(toybox):
    """ComfyUI marks such layers by prev_comfy_cast_weights and computes with the result of weight_function."""
    model = random_model()
    model.load(model.load_device, lowvram_model_memory=1)
    left = host.cast_at_use(model.model)
    assert len(left) > 10, changed("a partial load leaves no mark prev_comfy_cast_weights")
    layer = next(module for module in left if isinstance(module, nn.Linear))
    seen = []
    layer.weight_function = [*layer.weight_function, lambda weight: seen.append(weight) or weight]
    layer(torch.zeros(1, layer.in_features))
    assert len(seen) == 1, changed("weight_function is not called by a layer that stays behind")
    model.unpatch_model(model.offload_device)
    assert host.cast_at_use(model.model) == [], changed("unloading leaves prev_comfy_cast_weights")


def test_for_training_gives_frozen_ordinary_tensors_and_puts_flags_back(comfyui):
    import comfy.model_management as management

    model = random_model()
    before = getattr(management, "in_training", None)
    with host.for_training(model, 0) as plain:
        assert plain is model and not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
        assert not any(p.requires_grad or p.is_inference() for p in plain.model.parameters())
        if before is not None:
            assert management.in_training is True
    assert getattr(management, "in_training", None) is before


def test_in_main_memory_marks_a_model_that_is_loaded_there_and_unloaded_afterwards(comfyui):
    import comfy.model_management as management

    model = random_model()
    host.load(model, 0, whole=True)
    with host.for_training(model, 0, stream=True) as held:
        assert held is not model and held.model is model.model and held.load_device == torch.device("cpu")
        assert host.in_main_memory(held) and not host.in_main_memory(model)
        left = [loaded.model for loaded in management.current_loaded_models]
        assert held in left and model not in left, changed("free_memory does not unload what shares the weights")
    assert held not in [loaded.model for loaded in management.current_loaded_models]


def test_own_tensors_leaves_quantized_ones(comfyui):
    class QuantizedTensor(torch.Tensor):
        """Has the name of the host's class."""

    module = nn.Module()
    module._parameters["plain"] = nn.Parameter(torch.ones(2), requires_grad=False)
    module._parameters["quantized"] = nn.Parameter(torch.ones(2).as_subclass(QuantizedTensor), requires_grad=False)
    kept = module._parameters["quantized"]
    assert module.plain.is_inference()
    with torch.inference_mode(False):
        host.own_tensors(module)
    assert not module.plain.is_inference() and module._parameters["quantized"] is kept
    try:
        from comfy.quant_ops import QuantizedTensor as theirs
    except ImportError:
        return  # older hosts have none
    assert theirs.__name__ == "QuantizedTensor", changed("quantized tensors have another name")


# --- gradients of fused operators ---


def test_register_gradients_matches_the_eager_code(comfyui):
    """Gradients of every operator equal those of the library's eager functions."""
    if not host.register_gradients():
        pytest.skip(f"{HERE} has no comfy_kitchen without gradients")
    from comfy_kitchen.backends.eager import rope

    assert set(host.register_gradients()) == set(host_rope.OPERATORS), changed(
        "an operator is gone, or has a formula now"
    )
    with torch.inference_mode(False), torch.enable_grad():
        angles = noise(1, 1, 5, 4, 1, seed=1)
        freqs = torch.cat([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], -1).view(1, 1, 5, 4, 2, 2)
        for name in host_rope.OPERATORS:
            one = "1" in name
            tensors = [noise(1, 2, 5, 8, seed=2), *([] if one else [noise(1, 2, 5, 8, seed=3)]), freqs]
            tensors += [noise(8, seed=4)] if name.startswith("rms") else []
            assert _gradients(getattr(torch.ops.comfy_kitchen, name), tensors) == pytest.approx(
                _gradients(getattr(rope, name), tensors), abs=1e-6
            ), changed(f"the gradient of {name}")


def _gradients(function, tensors: list[torch.Tensor]) -> list[float]:
    own = [t.clone().requires_grad_() for t in tensors]
    found = function(*own)
    loss = sum(
        (i + 1) * f.square().mul(torch.arange(8.0)).sum()
        for i, f in enumerate(found if isinstance(found, tuple) else (found,))
    )
    loss.backward()
    return [value for tensor in own for value in tensor.grad.flatten().tolist()]


# --- injections and hooks of a MODEL, and names ---


def test_with_injection_and_without_injection_call_at_load_and_unload(toybox):
    told = []
    riding = host.with_injection(
        toybox[0], "contract", lambda p: told.append("in"), lambda p: told.append("out"), "cargo"
    )
    assert riding.attachments["contract"] == "cargo" and "contract" not in toybox[0].attachments
    host.load(riding, 0)
    assert told == ["in"], changed("inject is not called, once, when a MODEL is loaded")
    host.unload(riding)
    assert told[-1] == "out", changed("eject is not called when a MODEL is unloaded")
    bare = host.without_injection(riding, "contract")
    count = len(told)
    host.load(bare, 0)
    assert len(told) == count and "contract" not in bare.attachments


def test_hooks_heard_asks_layers_that_can_be_passed_over(comfyui):
    class Fused(nn.Linear):
        comfy_force_forward = False

    layers = [Fused(1, 1), nn.Linear(1, 1), Fused(1, 1)]
    layers[2].comfy_force_forward = False
    with host.hooks_heard(layers):
        assert layers[0].comfy_force_forward and layers[2].comfy_force_forward
        assert not hasattr(layers[1], "comfy_force_forward")
    assert not layers[0].comfy_force_forward and "comfy_force_forward" not in vars(layers[0])
    assert vars(layers[2])["comfy_force_forward"] is False


def test_forget_compiled_is_for_compiled_models_alone(toybox, monkeypatch):
    resets = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    plain = toybox[0].clone()
    host.forget_compiled(plain)
    assert resets == []
    wrapped = plain.clone()
    wrapped.add_wrapper_with_key("apply_model", "torch.compile", lambda executor, *args: executor(*args))
    host.forget_compiled(wrapped)
    assert resets == [1], changed("wrappers are not kept by their key")


def test_rounding_of_merge_and_rounds_inputs_find_nothing_in_float32(toybox):
    model = toybox[0]
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    layer = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1.to_q
    lora = {f"{name}.lora_up.weight": torch.ones(len(layer.weight), 1), f"{name}.alpha": torch.tensor(1.0)}
    lora[f"{name}.lora_down.weight"] = torch.ones(1, layer.weight.shape[1])
    assert host.rounding_of_merge(model, lora) is None
    assert not host.rounds_inputs(layer), changed("quant_format of a plain layer")


def test_unet_names_are_those_of_diffusers(toybox):
    names = host.unet_names(toybox[0].model)
    assert names["input_blocks.0.0"] == "conv_in" and names["middle_block.0.in_layers.2"] == "mid_block.resnets.0.conv1"
    assert host.unet_names(random_model("flux", "FLUX").model) == {}, changed(
        "unet_to_diffusers takes a transformer's config"
    )
