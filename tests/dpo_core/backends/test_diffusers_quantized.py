"""Quantized bases on a CPU: loading, gradients against the dequantized weights, LoRA files, folders, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dreambooth_dpo.benchmarks.common.device_stand_in import block_sizes, spoiled
from dreambooth_dpo.benchmarks.pipelines.offload import offloads
from dreambooth_dpo.benchmarks.pipelines.quantized import dequantized, gradient, linear_layers, quantized_row
from dreambooth_dpo.benchmarks.pipelines.tiny import SIDE, tiny
from dreambooth_dpo.dpo_core.backends.diffusers import quantized
from dreambooth_dpo.dpo_core.backends.diffusers.loading import load_model
from dreambooth_dpo.dpo_core.backends.diffusers.loras import merge_lora
from dreambooth_dpo.dpo_core.backends.diffusers.quantized import (
    KINDS,
    keep_layout,
    quantize,
    raw_parts,
    stored_quantization,
)
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.same_run import PARTS, check_same_run
from dreambooth_dpo.dpo_core.settings import AdapterSettings, SamplingSettings, TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData
from dreambooth_dpo.dpo_core.training.lora_files import save_lora
from dreambooth_dpo.dpo_core.training.memory.packed_layers import packed_forward
from dreambooth_dpo.dpo_core.training.memory.predict import predict_step
from dreambooth_dpo.dpo_core.training.trainer import Trainer

CPU = torch.device("cpu")
SAMPLING = SamplingSettings(steps=2, guidance=1.0, width=SIDE, height=SIDE, batch_size=4)
WEIGHTS = {"bnb-nf4": 0.15, "torchao-int8": 0.01, "torchao-fp8": 0.05}
"""Largest distance of the dequantized weights, of their norm."""
SIZES = {"bnb-nf4": 0.15, "torchao-int8": 0.30, "torchao-fp8": 0.30}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of a tiny Flux."""
    path = tmp_path_factory.mktemp("größe") / "modèle"
    tiny("FluxPipeline").save_pretrained(path)
    return path


def load(folder: Path, kind: str | None = None, precision: str = "fp32", loras: dict | None = None):
    return load_model(folder, None, "cpu", precision, SAMPLING, loras or {}, kind)


@pytest.fixture(scope="module", params=KINDS)
def loaded(request, folder):
    """(name of the quantization, the tiny Flux loaded with it)."""
    return request.param, load(folder, request.param)


@pytest.mark.parametrize(
    "name, kind",
    [*(("FluxPipeline", kind) for kind in KINDS), ("StableDiffusionXLPipeline", "bnb-nf4"),
     ("StableDiffusionPipeline", "torchao-int8")],
)  # fmt: skip
def test_gradients_are_those_on_the_dequantized_weights_and_the_lora_loads(name: str, kind: str) -> None:
    """The figures of `benchmarks.pipelines --quantized`, with limits at least ten times above what was measured."""
    found = quantized_row(name, kind)
    assert 1e-4 < found.weights < WEIGHTS[kind] and found.size < SIZES[kind]
    assert found.gradient < 1e-5 and found.stream < 1e-6
    assert max(found.levels.values()) < 0.02 and max(found.levels.values()) - min(found.levels.values()) < 1e-3
    assert found.lora < 1e-4


@pytest.fixture
def gpu_not_asked_for(monkeypatch) -> None:
    """diffusers, and the refusal for it, load bitsandbytes' weights on the CPU too."""
    from diffusers.quantizers.bitsandbytes.bnb_quantizer import BnB4BitDiffusersQuantizer

    monkeypatch.setattr(BnB4BitDiffusersQuantizer, "validate_environment", lambda *_, **__: None)
    monkeypatch.setattr(BnB4BitDiffusersQuantizer, "update_device_map", lambda *_: {"": "cpu"})
    monkeypatch.setattr(quantized, "NEEDS_GPU_TO_LOAD", ())


def test_it_is_what_diffusers_makes(loaded, folder, gpu_not_asked_for) -> None:
    """Bit for bit `from_pretrained(quantization_config=...)`."""
    from diffusers import FluxTransformer2DModel

    kind, model = loaded
    expected = FluxTransformer2DModel.from_pretrained(
        folder / "transformer", quantization_config=quantized._config(kind, torch.float32), torch_dtype=torch.float32
    )
    own, theirs = dict(model.denoiser.named_parameters()), dict(expected.named_parameters())
    assert own.keys() == theirs.keys() and model.denoiser.dtype == expected.dtype
    for name, weight in own.items():
        for a, b in zip(raw_parts(weight), raw_parts(theirs[name]), strict=True):
            assert a.dtype == b.dtype and torch.equal(a.float(), b.float()), name
    assert sum(type(w) is not type(theirs[n]) for n, w in own.items()) == 0


def test_a_stored_quantization_loads_and_draws_the_same(loaded, folder, tmp_path, gpu_not_asked_for) -> None:
    from diffusers import FluxTransformer2DModel

    kind, model = loaded
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    shutil.rmtree(again / "transformer")
    FluxTransformer2DModel.from_pretrained(
        folder / "transformer", quantization_config=quantized._config(kind, torch.float32), torch_dtype=torch.float32
    ).save_pretrained(again / "transformer")
    names = {"bnb-nf4": "bitsandbytes nf4", "torchao-int8": "torchao Int8WeightOnlyConfig"}
    assert stored_quantization(again, "cpu") == names.get(kind, "torchao Float8WeightOnlyConfig")
    stored = load(again)
    assert stored.described_parts()["transformer"]["quantization"] == stored_quantization(again)
    assert torch.equal(stored.sample(["a dog"], [1], SAMPLING), model.sample(["a dog"], [1], SAMPLING))
    assert torch.equal(gradient(stored), gradient(model))
    assert stored.fingerprint == load(again).fingerprint != load(folder).fingerprint
    with pytest.raises(UserError, match=f"model.quantize is {kind}, but .* is quantized already"):
        load(again, kind)
    with pytest.raises(UserError, match="LoRA cannot be merged into the quantized weights"):
        load(again, loras={tmp_path / "any.safetensors": 1.0})


def test_a_lora_is_not_merged_into_quantized_weights(loaded, tmp_path) -> None:
    _, model = loaded
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2.0, targets="attention"))
    save_lora(adapter, tmp_path / "lora.safetensors", {}, "transformer")
    before = gradient(model)
    with pytest.raises(UserError, match="cannot be merged into quantized weights"):
        merge_lora(model.pipe, tmp_path / "lora.safetensors", 1.0)
    assert torch.equal(gradient(model), before)


def test_a_lora_is_merged_before(loaded, folder, tmp_path) -> None:
    kind, _ = loaded
    plain = load(folder)
    adapter = Adapter(plain.denoiser, AdapterSettings(rank=2, alpha=2.0, targets="all"))
    for layer in adapter.policy.values():
        torch.nn.init.normal_(layer.up, std=0.5)
    save_lora(adapter, tmp_path / "lora.safetensors", {}, "transformer")
    merged = linear_layers(load(folder, kind, loras={tmp_path / "lora.safetensors": 1.0}).denoiser)
    for name, layer in adapter.layers.items():
        if isinstance(layer, torch.nn.Linear):
            expected = torch.nn.Linear(*reversed(layer.weight.shape), bias=False)
            expected.weight.data = layer.weight.data + adapter.policy[name].weight_change().detach()
            alone = torch.nn.Sequential(expected)
            alone.dtype, alone.config = torch.float32, type("Config", (), {})()
            quantize(alone, kind, CPU)
            torch.testing.assert_close(
                dequantized(merged[name].weight), dequantized(alone[0].weight), rtol=0, atol=2e-2
            )


def test_half_precision_computes_in_half_precision(loaded, folder) -> None:
    kind, _ = loaded
    model = load(folder, kind, "bf16")
    assert model.denoiser.dtype == torch.bfloat16 and model.denoiser.norm_out.linear.bias.dtype == torch.bfloat16
    assert bool(torch.isfinite(gradient(model)).all())


def test_sampling_with_the_adapter_leaves_quantized_weights_alone(loaded) -> None:
    """A merged weight would be rounded: the adapter acts by hooks."""
    _, model = loaded
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2.0, targets="attention"))
    for layer in adapter.policy.values():
        torch.nn.init.normal_(layer.up, std=0.2)
    before = {name: layer.weight for name, layer in adapter.layers.items()}
    with adapter.merged():
        merged = model.sample(["a dog"], [1], SAMPLING)
        assert all(layer.weight is before[name] for name, layer in adapter.layers.items())
    with adapter.attached():
        assert torch.equal(model.sample(["a dog"], [1], SAMPLING), merged)
    assert not torch.equal(model.sample(["a dog"], [1], SAMPLING), merged)


def test_weights_outside_their_turn_are_seen(loaded) -> None:
    """Control of the level stream: without it, the stand-in's weights in main memory give other gradients."""
    _, model = loaded
    expected = gradient(model)
    with spoiled(model.denoiser):
        assert bool((gradient(model) != expected).any())  # NaN differs too


@pytest.mark.parametrize("ahead", [False, True])
def test_one_block_is_on_the_device(loaded, ahead: bool) -> None:
    """bitsandbytes' own autograd function would keep the packed weights of all blocks (packed_layers.py)."""
    _, model = loaded
    outside, sizes = block_sizes(model.denoiser)
    with spoiled(model.denoiser, ahead) as mover:
        gradient(model, "stream", mover)
    assert outside + max(sizes) <= mover.peak <= outside + (sum(sizes) if ahead else max(sizes))
    assert mover.bytes_there() == 0


@pytest.mark.parametrize("nested", [False, True], ids=["scales", "scales of scales"])
def test_a_4_bit_layer_has_the_gradient_of_bitsandbytes(nested: bool) -> None:
    import bitsandbytes

    layer = bitsandbytes.nn.Linear4bit(128, 64, quant_type="nf4", compress_statistics=nested).requires_grad_(False)
    layer.to("cpu")
    assert layer.weight.quant_state.nested == nested
    found = []
    for forward in (layer, packed_forward(layer, layer.forward)):
        x = torch.linspace(-1, 1, 3 * 128).view(3, 128).requires_grad_()
        found.append(torch.autograd.grad(forward(x).square().sum(), x)[0])
    assert torch.equal(*found) and bool(found[0].any())


def test_streamed_scales_stay_where_they_are(loaded) -> None:
    """bitsandbytes' `.to` moves scales in place: those of the weights in main memory must not follow their copies."""
    from dreambooth_dpo.dpo_core.training.memory.stream import Mover

    _, model = loaded
    for layer in linear_layers(model.denoiser).values():
        copy = Mover("meta").to_device(layer.weight)
        assert {part.device.type for part in raw_parts(copy)} == {"meta"}
        assert {part.device.type for part in raw_parts(layer.weight)} == {"cpu"}


def test_memory_is_predicted(loaded, folder) -> None:
    _, model = loaded
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2.0, targets="attention"))
    latents = model.sample(["a dog", "a dog"], [1, 2], SAMPLING)
    data = PairData(latents[:1], latents[1:], model.encode_prompts(["a dog"]))
    trainer = Trainer(model, adapter, data, TrainSettings(batch_size=1, accumulation=1, memory="fast"), 0)
    own = sum(part.nbytes for weight in model.denoiser.parameters() for part in raw_parts(weight))
    with model.training():
        found = predict_step(trainer, "fast")
    buffers = sum(buffer.nbytes for buffer in model.denoiser.buffers())
    assert found.weights == own + buffers and found.peak > found.weights


def test_the_layout_of_4_bit_weights_stays(folder) -> None:
    """bitsandbytes packs them anew on some CPUs in a forward without gradients; later forwards then have none."""
    model = load(folder, "bnb-nf4")
    layers = [m for m in model.denoiser.modules() if hasattr(m, "support_avx512bf16_for_cpu")]
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
    layers[0].support_avx512bf16_for_cpu = True
    keep_layout(model.denoiser)
    assert not layers[0].support_avx512bf16_for_cpu


def test_group_offloading_is_for_drawing_alone() -> None:
    """Why the level stream is not diffusers' group offloading: it frees no weights in training (docs/headless.md)."""
    found = offloads()
    drawing, plain, checkpointed, stream = found.values()
    assert drawing.right and drawing.peak < 0.2
    assert not plain.right and plain.peak > 0.9
    assert checkpointed.right and checkpointed.peak > 0.9 and checkpointed.left > 0.9
    assert stream.right and stream.peak < 0.2


# --- what a run depends on ---


def test_a_run_is_continued_with_its_own_quantization_alone(folder, tmp_path) -> None:
    parts = {kind: load(folder, kind) for kind in (None, "torchao-int8", "torchao-fp8")}
    described = {
        kind: {"model": model.fingerprint, PARTS: model.described_parts()} for kind, model in parts.items()
    }  # fmt: skip
    assert json.loads(json.dumps(described[None])) == described[None]
    assert described["torchao-int8"]["model"] == load(folder, "torchao-int8").fingerprint
    run = RunFolder(tmp_path / "run")
    check_same_run(run, described["torchao-int8"], resume=False)
    check_same_run(run, described["torchao-int8"], resume=True)
    for other in (None, "torchao-fp8"):
        name = "none" if other is None else other
        with pytest.raises(UserError, match=f"transformer.quantization was 'torchao-int8', is '{name}'"):
            check_same_run(run, described[other], resume=True)


def test_an_older_run_is_continued(folder, tmp_path) -> None:
    """Its folder names no quantization."""
    model, other = load(folder), load(folder, "torchao-int8")
    now = {"model": model.fingerprint, PARTS: model.described_parts()}
    older = json.loads(json.dumps(now))
    for part in older[PARTS].values():
        part.pop("quantization", None)
    run = RunFolder(tmp_path / "run")
    check_same_run(run, older, resume=False)
    check_same_run(run, now, resume=True)
    with pytest.raises(UserError, match=r"transformer\.weights was"):
        check_same_run(run, {"model": other.fingerprint, PARTS: other.described_parts()}, resume=True)
