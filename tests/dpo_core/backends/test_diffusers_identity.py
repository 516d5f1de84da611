"""What a pipeline's pictures depend on, by part: every change is seen, and named."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from models import tiny_stable_diffusion

from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage
from dreambooth_dpo.dpo_core.hashing import update_with_tensor
from dreambooth_dpo.dpo_core.run.same_run import changes


def described(change=None) -> dict:
    pipe = tiny_stable_diffusion()
    if change is not None:
        change(pipe)
    return DiffusersTextToImage(pipe).described_parts()


@pytest.fixture(scope="module")
def before() -> dict:
    return described()


def test_it_is_plain_json_and_the_same_every_time(before):
    assert json.loads(json.dumps(before, allow_nan=False)) == before == described()
    assert set(before) == {"scheduler", "tokenizer", "unet", "vae", "text_encoder"}
    assert before["scheduler"]["beta_schedule"] == "scaled_linear" and before["tokenizer"]["longest"] == 24


def test_the_fingerprint_of_a_model_stays_what_it_was():
    """Run folders hold it: one hash of prediction type, schedule and the weights of UNet, text encoder and VAE."""
    model = DiffusersTextToImage(tiny_stable_diffusion())
    digest = hashlib.sha256(b"epsilon" + model.alphas.half().numpy().tobytes())
    for module in (model.pipe.unet, model.pipe.text_encoder, model.pipe.vae):
        for name, value in module.named_parameters():
            digest.update(f"{name}{tuple(value.shape)}".encode())
            update_with_tensor(digest, value)
    assert model.fingerprint == digest.hexdigest()[:16]


def scheduler(**values):
    def change(pipe):
        kept = {"steps_offset": pipe.scheduler.config.steps_offset}  # the pipeline sets it, from_config drops it
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **kept, **values)

    return change


def scheduler_class(pipe):
    import diffusers

    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)


def weight(part: str):
    def change(pipe):
        with torch.no_grad():
            next(getattr(pipe, part).parameters()).flatten()[0] += 1

    return change


def vae_factor(pipe):
    pipe.vae.register_to_config(scaling_factor=0.5)


def tokenizer(pipe):
    pipe.tokenizer.add_tokens(["sks-new"])


def token_limit(pipe):
    pipe.tokenizer.model_max_length = 20


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (scheduler(algorithm_type="sde-dpmsolver++"), {"scheduler.algorithm_type"}),
        (scheduler(use_karras_sigmas=True), {"scheduler.use_karras_sigmas"}),
        (scheduler(timestep_spacing="trailing"), {"scheduler.timestep_spacing"}),
        (scheduler(beta_schedule="linear"), {"scheduler.beta_schedule"}),
        (scheduler(prediction_type="v_prediction"), {"scheduler.prediction_type"}),
        (weight("unet"), {"unet.weights"}),
        (weight("vae"), {"vae.weights"}),
        (weight("text_encoder"), {"text_encoder.weights"}),
        (vae_factor, {"vae.scaling_factor"}),
        (tokenizer, {"tokenizer.vocabulary"}),
        (token_limit, {"tokenizer.longest"}),
    ],
)
def test_a_change_is_named_by_its_part(before, change, names):
    assert set(changes(before, described(change))) == names


def test_another_scheduler_class_is_named(before):
    assert changes(before, described(scheduler_class))["scheduler.class"] == (
        "DPMSolverMultistepScheduler",
        "DDIMScheduler",
    )
