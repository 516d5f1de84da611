"""Sampling by the diffusers backend, compared with diffusers' own pipeline and with guidance written by hand."""

from __future__ import annotations

import pytest
import torch
from models import SAMPLING, tiny_text_to_image

PROMPTS = ["a sks robot on grass", "a bear in snow", "a red robot", "a sks robot at night"]
SEEDS = [3, 14, 15, 92]


def noise_of(seed: int) -> torch.Tensor:
    return torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sampling_equals_the_pipelines_own(model, guidance):
    """diffusers' StableDiffusionPipeline from the same noise, which at guidance 1 runs without the empty prompt."""
    expected = model.pipe(
        PROMPTS,
        latents=torch.stack([noise_of(s) for s in SEEDS]),
        num_inference_steps=SAMPLING.steps,
        guidance_scale=guidance,
        height=64,
        width=64,
        output_type="latent",
    ).images
    found = model.sample(PROMPTS, SEEDS, SAMPLING.model_copy(update={"guidance": guidance}))
    assert found.dtype == torch.float32 and found.device.type == "cpu" and found.shape == (4, 4, 16, 16)
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_batch_size_changes_no_candidate(model, guidance):
    settings = SAMPLING.model_copy(update={"guidance": guidance})
    together = model.sample(PROMPTS, SEEDS, settings)
    alone = torch.cat([model.sample([p], [s], settings) for p, s in zip(PROMPTS, SEEDS, strict=True)])
    turned = model.sample(PROMPTS[::-1], SEEDS[::-1], settings).flip(0)
    assert (together - alone).abs().max() <= 1e-4 and (together - turned).abs().max() <= 1e-4
    assert all((together[i] - together[j]).abs().max() > 0.1 for i in range(4) for j in range(i))


def test_guidance_1_needs_no_empty_prompt_and_is_the_limit_of_guidance():
    model, sizes = tiny_text_to_image(), []
    model.denoiser.register_forward_pre_hook(lambda _m, args: sizes.append(len(args[0])))
    plain = model.sample(PROMPTS[:2], SEEDS[:2], SAMPLING.model_copy(update={"guidance": 1.0}))
    assert sizes == [2] * SAMPLING.steps
    nearly = model.sample(PROMPTS[:2], SEEDS[:2], SAMPLING.model_copy(update={"guidance": 1.0001}))
    assert sizes[SAMPLING.steps :] == [4] * SAMPLING.steps
    assert (plain - nearly).abs().max() < 1e-2


def guided_by_hand(model, guidance: float, guided_steps: int) -> torch.Tensor:
    """The sampler by hand: both forwards and their mix in the first steps, then only the prompted forward."""
    scheduler = model.scheduler
    scheduler.set_timesteps(SAMPLING.steps)
    latents = torch.stack([noise_of(s) for s in SEEDS]) * scheduler.init_noise_sigma
    cond = model.encode_prompts(PROMPTS)["encoder_hidden_states"]
    both = torch.cat([model.encode_prompts([""] * len(PROMPTS))["encoder_hidden_states"], cond])
    with torch.no_grad():
        for i, t in enumerate(scheduler.timesteps):
            if i < guided_steps:
                double = scheduler.scale_model_input(torch.cat([latents, latents]), t)
                plain, prompted = model.denoiser(double, t, encoder_hidden_states=both).sample.float().chunk(2)
                raw = plain + guidance * (prompted - plain)
            else:
                raw = model.denoiser(
                    scheduler.scale_model_input(latents, t), t, encoder_hidden_states=cond
                ).sample.float()
            latents = scheduler.step(raw, t, latents).prev_sample
    return latents.float()


@pytest.mark.parametrize(("until", "guided_steps"), [(1.0, 3), (0.7, 2), (0.5, 2), (0.34, 1), (0.1, 0), (0.0, 0)])
def test_guidance_in_the_first_steps_only(model, until, guided_steps):
    """3 steps: a share is rounded to whole steps; 1 is guidance in all of them, bit for bit."""
    settings, sizes = SAMPLING.model_copy(update={"guidance_until": until}), []
    handle = model.denoiser.register_forward_pre_hook(lambda _m, args: sizes.append(len(args[0])))
    found = model.sample(PROMPTS, SEEDS, settings)
    handle.remove()
    assert sizes == [8] * guided_steps + [4] * (3 - guided_steps)
    assert torch.equal(found, guided_by_hand(model, settings.guidance, guided_steps))


def test_guidance_in_no_step_is_no_guidance(eps_model):
    without = eps_model.sample(PROMPTS, SEEDS, SAMPLING.model_copy(update={"guidance": 1.0}))
    assert torch.equal(eps_model.sample(PROMPTS, SEEDS, SAMPLING.model_copy(update={"guidance_until": 0.0})), without)


def test_each_candidate_starts_from_the_noise_of_its_own_seed(eps_model):
    starts = []
    handle = eps_model.denoiser.register_forward_pre_hook(lambda _m, args: starts.append(args[0].clone()))
    state = torch.random.get_rng_state()
    eps_model.sample(PROMPTS, [5, 6, 5, 7], SAMPLING.model_copy(update={"guidance": 1.0, "steps": 1}))
    handle.remove()
    assert torch.equal(starts[0], torch.stack([noise_of(s) for s in (5, 6, 5, 7)]))
    assert torch.equal(state, torch.random.get_rng_state())


def test_on_step_is_called_and_a_second_call_repeats_the_first(eps_model):
    told: list[int] = []
    first = eps_model.sample(PROMPTS[:1], [1], SAMPLING, told.append)
    assert told == list(range(1, SAMPLING.steps + 1))
    assert torch.equal(first, eps_model.sample(PROMPTS[:1], [1], SAMPLING))


def test_width_and_height(eps_model):
    settings = SAMPLING.model_copy(update={"width": 96, "height": 64, "steps": 1})
    latents = eps_model.sample(PROMPTS[:1], [1], settings)
    assert latents.shape == (1, *eps_model.latent_shape(settings)) == (1, 4, 16, 24)
    assert eps_model.decode(latents).shape == (1, 64, 96, 3)
