"""Tests every pipeline class that is driven by its own call: drawing, gradients, LoRA files, loading, refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from whole_checkpoint import save_whole

from dreambooth_dpo.benchmarks.pipelines.check import PROMPTS, model_of, row, settings
from dreambooth_dpo.benchmarks.pipelines.tiny import BUILDERS, SIDE, tiny
from dreambooth_dpo.dpo_core.backends.diffusers.latents import from_vae, to_vae
from dreambooth_dpo.dpo_core.backends.diffusers.loading import check_model, load_model, pipeline_class
from dreambooth_dpo.dpo_core.backends.diffusers.loras import merge_lora
from dreambooth_dpo.dpo_core.backends.diffusers.pipelines import DRIVEN, from_tokens, to_tokens
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.families import family_of
from dreambooth_dpo.dpo_core.settings import AdapterSettings, SamplingSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import fits_adapter, load_into_adapter, save_lora

SAMPLING = SamplingSettings(steps=2, guidance=1.0, width=SIDE, height=SIDE, batch_size=4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder of a tiny Z-Image."""
    folder = tmp_path_factory.mktemp("größe") / "modèle"
    tiny("ZImagePipeline").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", DRIVEN)
def test_a_class_draws_trains_at_every_level_and_its_lora_loads(name: str) -> None:
    """The figures of `benchmarks.pipelines`, with limits a hundred times above what was measured."""
    found = row(name)
    assert found.drawn < 5e-5 and found.decoded <= 1
    assert max(found.levels.values()) < 0.05 and max(found.levels.values()) - min(found.levels.values()) < 1e-3
    assert found.lora < 1e-4


@pytest.mark.parametrize("name", ["FluxPipeline", "ZImagePipeline"])
def test_a_candidate_does_not_depend_on_its_batch(name: str) -> None:
    model = model_of(tiny(name))
    together = model.sample(PROMPTS, [1, 2, 3], settings(model))
    for i, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(model.sample([prompt], [i + 1], settings(model))[0], together[i], rtol=0, atol=2e-5)
    steps: list[int] = []
    model.sample(PROMPTS, [1, 2, 3], settings(model), steps.append)
    assert steps[-1] == 3 and steps == sorted(steps)


@pytest.mark.parametrize("name", ["FluxPipeline", "Flux2KleinPipeline"])
def test_tokens_are_those_of_the_pipeline(name: str) -> None:
    driven, latents = DRIVEN[name], torch.randn(2, 4, 6, 8)
    tokens = to_tokens(latents, driven)
    own = getattr(__import__("diffusers"), name)._pack_latents
    expected = own(latents, 2, 4, 6, 8) if driven.tokens == "patches" else own(latents)
    assert torch.equal(tokens, expected)
    assert torch.equal(from_tokens(tokens, (4, 6, 8), driven), latents)


@pytest.mark.parametrize("name", ["FluxPipeline", "Flux2KleinPipeline", "QwenImagePipeline"])
def test_latents_of_the_vae_and_back(name: str) -> None:
    model = model_of(tiny(name))
    latents = torch.randn(2, *model.shape())
    torch.testing.assert_close(from_vae(model.pipe.vae, to_vae(model.pipe.vae, latents)), latents, rtol=0, atol=1e-5)


def test_every_class_has_a_family() -> None:
    for name in DRIVEN:
        kind = "flow" if DRIVEN[name].flow else "eps"
        assert name in family_of(name, kind).diffusers and kind in family_of(name, kind).kinds


# --- refusals ---


def test_settings_that_a_pipeline_lacks_are_refused() -> None:
    model = model_of(tiny("ZImagePipeline"))
    with pytest.raises(UserError, match=r"guidance_until is 0\.5, but ZImagePipeline draws with guidance in all steps"):
        model.sample(["a"], [1], SAMPLING.model_copy(update={"guidance_until": 0.5}))
    model = model_of(tiny("Flux2Pipeline"))
    with pytest.raises(UserError, match=r"guidance is 3, but Flux2Pipeline has no classifier-free guidance\. Set"):
        model.sample(["a"], [1], SAMPLING.model_copy(update={"guidance": 3.0}))


def test_a_pipeline_that_calls_its_denoiser_otherwise_is_refused_before_its_first_picture() -> None:
    model = model_of(tiny("ZImagePipeline"))
    model.driven = replace(DRIVEN["ZImagePipeline"], time="levels")
    with pytest.raises(UserError, match="calls the denoiser of ZImagePipeline in a way that is not known here"):
        model.sample(["a"], [1], SAMPLING)


def _index(folder: Path, **changes: object) -> None:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    (folder / "model_index.json").write_text(json.dumps({**index, **changes}), encoding="utf-8")


def test_folders_that_cannot_be_driven_are_refused_by_name(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(saved, other)
    _index(other, _class_name="WanPipeline")
    with pytest.raises(UserError, match="it holds a WanPipeline. The headless way drives StableDiffusionPipeline, St"):
        check_model(other)
    _index(other, _class_name="ZImagePipeline")
    weights = other / "text_encoder" / "model.safetensors"
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="is a Git LFS pointer"):
        check_model(other)
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(UserError, match=r"text_encoder has its weights as pytorch_model\.bin\. Only \.safetensors"):
        check_model(other)
    shutil.copy(saved / "text_encoder" / weights.name, weights)
    shutil.rmtree(other / "vae")
    with pytest.raises(UserError, match="it has no vae. Put the folder vae there"):
        check_model(other)


def test_missing_weights_are_named(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "cut")
    path = tmp_path / "cut" / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["cap_embedder.1.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"transformer of .*1 missing: cap_embedder\.1\.weight"):
        load_model(tmp_path / "cut", None, "cpu", "fp32", SAMPLING, {})


# --- loading ---


def test_a_folder_and_its_fp16_variant_load(saved: Path, tmp_path: Path) -> None:
    model = load_model(saved, None, "cpu", "fp32", SAMPLING, {})
    assert model.fingerprint == model_of(tiny("ZImagePipeline")).fingerprint
    parts = model.described_parts()
    assert {"scheduler", "tokenizer", "transformer", "text_encoder", "vae"} == set(parts)
    tiny("ZImagePipeline").save_pretrained(tmp_path / "half", variant="fp16")
    half = load_model(tmp_path / "half", None, "cpu", "bf16", SAMPLING, {})
    assert half.denoiser.dtype == torch.bfloat16 and half.pipe.vae.dtype == torch.float32
    assert torch.isfinite(half.sample(["a sks robot"], [1], SAMPLING)).all()


def test_a_single_file_takes_its_configs_and_missing_parts_from_a_folder(tmp_path: Path) -> None:
    pipe = tiny("QwenImagePipeline")
    pipe.save_pretrained(tmp_path / "base")
    trained = tiny("QwenImagePipeline", seed=1)
    save_file(
        {k: v.contiguous() for k, v in trained.transformer.state_dict().items()}, tmp_path / "trained.safetensors"
    )
    with pytest.raises(UserError, match=r"trained\.safetensors is a single file, which holds no configs"):
        pipeline_class(tmp_path / "trained.safetensors")
    (tmp_path / "old.ckpt").write_bytes(b"x")
    with pytest.raises(UserError, match=r"old\.ckpt is a \.ckpt file\. Only diffusers folders and \.safetensors"):
        pipeline_class(tmp_path / "old.ckpt")
    tensors = load_file(tmp_path / "trained.safetensors")
    lost = next(iter(tensors))
    save_file({k: v for k, v in tensors.items() if k != lost}, tmp_path / "cut.safetensors")
    with pytest.raises(
        UserError, match=r"cut\.safetensors lacks weights that the config of QwenImagePipeline asks for"
    ):
        load_model(tmp_path / "cut.safetensors", tmp_path / "base", "cpu", "fp32", SAMPLING, {})
    model = load_model(tmp_path / "trained.safetensors", tmp_path / "base", "cpu", "fp32", SAMPLING, {})
    for name, weight in trained.transformer.state_dict().items():
        assert torch.equal(model.denoiser.state_dict()[name], weight)
    assert torch.equal(next(model.pipe.text_encoder.parameters()), next(pipe.text_encoder.parameters()))
    assert torch.isfinite(model.sample(["a sks robot"], [1], SAMPLING)).all()


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
def test_a_whole_checkpoint_is_taken_from_its_file_alone(name: str, tmp_path: Path) -> None:
    """UNet, VAE and text encoders of the file, in the names of the original code; none of the folder of configs."""
    tiny(name).save_pretrained(tmp_path / "base")
    trained = tiny(name, seed=1)
    save_whole(trained, tmp_path / "trained.safetensors")
    model = load_model(tmp_path / "trained.safetensors", tmp_path / "base", "cpu", "fp32", SAMPLING, {})
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if (expected := getattr(trained, part, None)) is not None:
            found = getattr(model.pipe, part).state_dict()
            for key, weight in expected.state_dict().items():
                assert torch.equal(found[key], weight), f"{part}: {key}"
    assert torch.isfinite(model.sample(["a sks robot"], [1], SAMPLING)).all()


@pytest.mark.parametrize(
    "lost",
    [
        "model.diffusion_model.out.2.weight",
        "first_stage_model.decoder.conv_in.weight",
        "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    ],
)
def test_a_whole_checkpoint_that_lacks_a_weight_is_refused(lost: str, tmp_path: Path) -> None:
    tiny("StableDiffusionPipeline").save_pretrained(tmp_path / "base")
    save_whole(tiny("StableDiffusionPipeline", seed=1), tmp_path / "whole.safetensors")
    tensors = load_file(tmp_path / "whole.safetensors")
    del tensors[lost]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match=r"cut\.safetensors lacks"):
        load_model(tmp_path / "cut.safetensors", tmp_path / "base", "cpu", "fp32", SAMPLING, {})


# --- LoRA files ---


@pytest.mark.parametrize("name", ["FluxPipeline", "QwenImagePipeline", "StableDiffusionXLPipeline"])
def test_a_lora_merged_here_equals_diffusers_own_fuse(name: str, tmp_path: Path) -> None:
    model = model_of(tiny(name))
    adapter = Adapter(model.denoiser, AdapterSettings(rank=3, alpha=2.0, targets="all"))
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=draws))
    path = tmp_path / "über.safetensors"
    save_lora(adapter, path, {}, getattr(model, "component", "unet"))
    ours, theirs = tiny(name), tiny(name)
    merge_lora(ours, path, 0.7)
    theirs.load_lora_weights(str(tmp_path), weight_name=path.name)
    theirs.fuse_lora(lora_scale=0.7)
    component = "unet" if name.startswith("StableDiffusionXL") else "transformer"
    fused = {k.replace(".base_layer", ""): v for k, v in getattr(theirs, component).state_dict().items()}
    for key, weight in getattr(ours, component).state_dict().items():
        torch.testing.assert_close(weight, fused[key], rtol=0, atol=1e-6)


def test_a_transformers_lora_continues_and_foreign_ones_are_refused(tmp_path: Path) -> None:
    model = model_of(tiny("ZImagePipeline"))
    adapter, other = (Adapter(model.denoiser, AdapterSettings(rank=2, alpha=3.0), seed=s) for s in (0, 1))
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(0))
    save_lora(adapter, tmp_path / "a.safetensors", {}, "transformer")
    assert fits_adapter(other, tmp_path / "a.safetensors")
    load_into_adapter(other, tmp_path / "a.safetensors")
    for name, tensor in adapter.state().items():
        torch.testing.assert_close(other.state()[name], tensor, rtol=1e-6, atol=0)
    tensors = load_file(tmp_path / "a.safetensors")
    foreign = {k.replace("layers.0", "layers.7"): v for k, v in tensors.items()}
    save_file(foreign, tmp_path / "b.safetensors")
    assert not fits_adapter(other, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"b\.safetensors does not fit this model"):
        merge_lora(model.pipe, tmp_path / "b.safetensors", 1.0)


def test_every_class_that_is_driven_has_a_tiny_model() -> None:
    assert set(BUILDERS) == {"StableDiffusionPipeline", *DRIVEN}
