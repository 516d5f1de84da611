"""Model folders: loaded as they were saved, or refused with the folder's name."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from models import SAMPLING, tiny_pipeline, tiny_stable_diffusion, tiny_text_to_image

from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from dreambooth_dpo.dpo_core.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_pipeline(tmp_path_factory.mktemp("models") / "Modell – 犬", "v_prediction")


def test_a_folder_loads_as_it_was_saved(folder):
    loaded = DiffusersTextToImage(load_pipeline(folder))
    built = tiny_text_to_image("v_prediction")
    assert loaded.prediction_type == "v_prediction" and loaded.fingerprint == built.fingerprint
    assert torch.equal(loaded.sample(["a sks robot"], [1], SAMPLING), built.sample(["a sks robot"], [1], SAMPLING))


def test_half_precision_weights_load_as_float32(tmp_path):
    tiny_stable_diffusion().to(torch.float16).save_pretrained(tmp_path / "half", safe_serialization=True)
    assert {p.dtype for p in load_pipeline(tmp_path / "half").unet.parameters()} == {torch.float32}


def test_a_folder_without_a_model_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"has no model_index\.json"):
            load_pipeline(path)


@pytest.mark.parametrize(
    "damage", ["no weights", "cut weights", "noise", "pickle only", "no component", "other pipeline", "no json"]
)
def test_a_damaged_folder_is_refused(folder, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    index = copy / "model_index.json"
    if damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif damage == "noise":
        weights.write_bytes(b"\xff" * 1000)
    elif damage == "pickle only":
        weights.rename(weights.with_suffix(".bin"))
    elif damage == "no component":
        shutil.rmtree(copy / "text_encoder")
    elif damage == "other pipeline":
        index.write_text(
            json.dumps({"_class_name": "FluxPipeline", "transformer": ["diffusers", "Nothing"]}), encoding="utf-8"
        )
    else:
        index.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="copy cannot be loaded as a StableDiffusionPipeline"):
        load_pipeline(copy)


def test_another_prediction_type_is_refused():
    pipe = tiny_stable_diffusion()
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type="sample")
    with pytest.raises(UserError, match="prediction type 'sample'.*epsilon or v_prediction"):
        DiffusersTextToImage(pipe)
