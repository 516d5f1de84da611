"""Model folders: every weight is there and fits, and parts that the loop cannot drive are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from models import SAMPLING, tiny_pipeline, tiny_stable_diffusion
from safetensors.torch import load_file, save_file

from dreambooth_dpo.dpo_core.backends.diffusers.folder import check_model_folder
from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from dreambooth_dpo.dpo_core.errors import UserError

FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("folder") / "Modell – 犬")


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change_json(path: Path, **values: object) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({k: v for k, v in {**config, **values}.items() if v != "gone"}), encoding="utf-8")


def change_weights(path: Path, change) -> str:
    """Apply `change(tensors, key)` to a file's weights; key: one of its matrices, which is returned."""
    tensors = load_file(path)
    key = next(k for k in sorted(tensors) if tensors[k].ndim >= 2)
    change(tensors, key)
    save_file(tensors, path, metadata={"format": "pt"})
    return key


# --- weights ---


@pytest.mark.parametrize("part", FILES)
def test_a_missing_weight_is_named(copy, part):
    key = change_weights(copy / part / FILES[part], lambda tensors, key: tensors.pop(key))
    with pytest.raises(UserError, match=rf"weights of {part} of .*1 missing: \S*{key.removeprefix('text_model.')}"):
        load_pipeline(copy)


@pytest.mark.parametrize("part", FILES)
def test_an_unexpected_weight_is_named(copy, part):
    change_weights(copy / part / FILES[part], lambda tensors, _: tensors.update({"strange.weight": torch.zeros(2)}))
    with pytest.raises(UserError, match=rf"weights of {part} of .*1 unexpected: strange\.weight"):
        load_pipeline(copy)


@pytest.mark.parametrize("part", FILES)
def test_a_weight_of_another_shape_is_named(copy, part):
    key = change_weights(
        copy / part / FILES[part], lambda tensors, key: tensors.update({key: torch.zeros(5, *tensors[key].shape[1:])})
    )
    with pytest.raises(UserError, match=key.removeprefix("text_model.").replace(".", r"\.")):
        load_pipeline(copy)


@pytest.mark.parametrize("part", FILES)
def test_weights_under_another_prefix_are_refused(copy, part):
    path = copy / part / FILES[part]
    save_file({f"model.diffusion.{k}": v for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"weights of {part} of .*missing.*Missing weights would be random"):
        load_pipeline(copy)


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("damage", ["lfs", "cut"])
def test_pointers_and_cut_files_are_named(copy, part, damage):
    path = copy / part / FILES[part]
    if damage == "lfs":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 123\n", encoding="utf-8")
    else:
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match={"lfs": "Git LFS pointer", "cut": "is cut off"}[damage]):
        check_model_folder(copy)


def test_buffers_of_older_transformers_are_no_error(copy):
    path = copy / "text_encoder" / FILES["text_encoder"]
    change_weights(
        path, lambda tensors, _: tensors.update({"text_model.embeddings.position_ids": torch.arange(24)[None]})
    )
    load_pipeline(copy)


# --- what the loop can drive ---


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline", "StableDiffusionUpscalePipeline",
        "StableDiffusionInstructPix2PixPipeline", "PixArtAlphaPipeline", "LatentConsistencyModelPipeline", None,
    ],
)  # fmt: skip
def test_another_pipeline_class_is_refused_by_name(copy, name):
    change_json(copy / "model_index.json", _class_name=name)
    with pytest.raises(UserError, match=rf"it holds a {name}\. .*drives Stable Diffusion 1 and 2"):
        check_model_folder(copy)


@pytest.mark.parametrize("name", ["StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"])
def test_other_classes_with_the_same_parts_work(copy, name):
    change_json(copy / "model_index.json", _class_name=name)
    load_pipeline(copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
@pytest.mark.parametrize("how", ["folder", "entry"])
def test_a_missing_part_is_named(copy, part, how):
    if how == "folder":
        shutil.rmtree(copy / part)
    else:
        change_json(copy / "model_index.json", **{part: [None, None]})
    with pytest.raises(UserError, match=f"it has no {part}"):
        check_model_folder(copy)


@pytest.mark.parametrize(
    ("file", "values", "reason"),
    [
        ("unet/config.json", {"in_channels": 9}, r"takes 9 channels \(an inpainting model\)"),
        ("unet/config.json", {"in_channels": 8}, "takes 8 channels, and the VAE's latents have 4"),
        ("unet/config.json", {"out_channels": 8}, "learned variance"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type='text_time'"),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "time_cond_proj_dim=256"),
        ("vae/config.json", {"latent_channels": 16}, "latents have 16"),
        ("model_index.json", {"unet": ["diffusers", "SD3Transformer2DModel"]}, "its unet is a SD3Transformer2DModel"),
        ("model_index.json", {"text_encoder": ["transformers", "T5EncoderModel"]}, "its text_encoder is a T5Encoder"),
        ("model_index.json", {"scheduler": ["diffusers", "NowhereScheduler"]}, "scheduler NowhereScheduler is unknown"),
        (
            "scheduler/scheduler_config.json",
            {"beta_start": "gone", "beta_schedule": "gone", "trained_betas": "gone"},
            "has no table of betas",
        ),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}, "has no table of betas"),
        ("scheduler/scheduler_config.json", {"variance_type": "learned_range"}, "learned variance"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction type 'sample'"),
    ],
)
def test_parts_that_the_loop_cannot_drive_are_refused_by_name(copy, file, values, reason):
    change_json(copy / file, **values)
    with pytest.raises(UserError, match=reason):
        check_model_folder(copy)


def test_a_tokenizer_that_does_not_fit_is_refused(copy):
    change_json(copy / "tokenizer" / "tokenizer_config.json", model_max_length=500)
    with pytest.raises(UserError, match=r"makes up to 500 tokens, and the text encoder takes 24"):
        load_pipeline(copy)
    for file in (copy / "tokenizer").glob("*.json"):
        if file.name in ("tokenizer.json", "vocab.json"):
            file.unlink()
    with pytest.raises(UserError, match=r"its tokenizer has none of tokenizer\.json, vocab\.json"):
        load_pipeline(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
def test_a_single_file_checkpoint_is_refused_with_the_way_to_convert_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"single-file checkpoint.*from_single_file\('{name}'\)\.save_pretrained"):
        load_pipeline(tmp_path / name)


# --- schedulers ---


@pytest.mark.parametrize(
    "name",
    ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "EulerAncestralDiscreteScheduler",
     "UniPCMultistepScheduler", "LCMScheduler", "HeunDiscreteScheduler"],
)  # fmt: skip
def test_every_scheduler_with_betas_gives_deterministic_pictures(folder, copy, name):
    """Sampling is by DPM-Solver++ on the scheduler's noise schedule, whatever the scheduler's class."""
    import diffusers

    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    getattr(diffusers, name)(**betas).save_pretrained(copy / "scheduler")
    change_json(copy / "model_index.json", scheduler=["diffusers", name])
    model = DiffusersTextToImage(load_pipeline(copy))
    first, again = (model.sample(["a robot"], [1], SAMPLING) for _ in range(2))
    assert torch.equal(first, again) and torch.isfinite(first).all()
    assert torch.equal(model.alphas, DiffusersTextToImage(load_pipeline(folder)).alphas)


def noisy() -> DiffusersTextToImage:
    """The tiny model with DPM-Solver's stochastic variant, which adds noise at every step."""
    pipe = tiny_stable_diffusion()
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, algorithm_type="sde-dpmsolver++")
    return DiffusersTextToImage(pipe)


def test_a_candidate_of_a_sampler_that_adds_noise_depends_on_its_prompt_and_seed_alone():
    model, prompts, seeds = noisy(), ["a bear", "a robot", "a bottle"], [5, 6, 7]
    torch.manual_seed(1)
    together = model.sample(prompts, seeds, SAMPLING)
    torch.manual_seed(2)
    assert torch.equal(model.sample(prompts, seeds, SAMPLING), together)
    alone = torch.cat([model.sample([p], [s], SAMPLING) for p, s in zip(prompts, seeds, strict=True)])
    assert (alone - together).abs().max() < 1e-3
    backwards = model.sample(prompts[::-1], seeds[::-1], SAMPLING).flip(0)
    assert (backwards - together).abs().max() < 1e-3
    plain = DiffusersTextToImage(tiny_stable_diffusion()).sample(prompts, seeds, SAMPLING)
    assert (plain - together).abs().max() > 0.1, "the noise must have been added"


@pytest.mark.parametrize(
    ("name", "kind"), [("DEISMultistepScheduler", "deis"), ("SASolverScheduler", "data_prediction")]
)
def test_a_scheduler_whose_config_the_sampler_cannot_take_is_refused(name, kind):
    import diffusers

    pipe = tiny_stable_diffusion()
    pipe.scheduler = getattr(diffusers, name)(algorithm_type=kind)
    with pytest.raises(UserError, match=rf"scheduler {name} of this model cannot be used: .*another scheduler"):
        DiffusersTextToImage(pipe)
