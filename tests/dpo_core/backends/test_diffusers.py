"""The diffusers backend against diffusers' own pipeline and against formulas written out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models import SAMPLING, tiny_stable_diffusion, tiny_text_to_image

from dreambooth_dpo.dpo_core.backends.diffusers import model as backend
from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage
from dreambooth_dpo.dpo_core.protocols import TextToImage

PROMPTS = ["a sks robot on grass", "a bear in snow", "a red robot", "a sks robot at night"]
SEEDS = [3, 14, 15, 92]


def noise_of(seed: int) -> torch.Tensor:
    return torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed))


def alphas_by_hand() -> np.ndarray:
    """Stable Diffusion's schedule: sqrt(beta) is linear from sqrt(0.00085) to sqrt(0.012) over 1000 steps.

    a = product of 1 - beta.
    """
    return np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


class PerfectDenoiser(torch.nn.Module):
    """A perfect denoiser: it returns the exact noise (or v) that leads from `x0` to its input."""

    def __init__(self, x0: torch.Tensor, kind: str) -> None:
        super().__init__()
        self.x0, self.kind, self.config = x0, kind, SimpleNamespace(in_channels=4)

    def forward(self, x, t, encoder_hidden_states):
        a = torch.tensor(alphas_by_hand(), dtype=torch.float32)[t.reshape(-1)].view(-1, 1, 1, 1)
        noise = (x - a.sqrt() * self.x0) / (1 - a).sqrt()
        return SimpleNamespace(sample=noise if self.kind == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * self.x0)


def test_it_fits_the_protocol(model):
    wanted = [n for n in vars(TextToImage) if not n.startswith("_")] + list(TextToImage.__annotations__)
    assert len(wanted) > 8 and all(hasattr(model, n) for n in wanted)


# --- noise and targets ---


def test_the_schedule_by_hand(model):
    assert np.abs(model.alphas.numpy() - alphas_by_hand()).max() < 1e-6


def test_noised_and_target_by_hand(model):
    """Per sample: sqrt(a) x0 + sqrt(1 - a) noise; the target is the noise, or sqrt(a) noise - sqrt(1 - a) x0."""
    x0, noise, times = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), -3.0), torch.tensor([0, 500, 999])
    noised, target = model.noised(x0, noise, times)
    for i, a in enumerate(alphas_by_hand()[[0, 500, 999]]):
        assert noised[i].flatten().tolist() == pytest.approx([a**0.5 * 2 - (1 - a) ** 0.5 * 3] * 4, abs=1e-5)
        expected = -3.0 if model.prediction_type == "epsilon" else -(a**0.5) * 3 - (1 - a) ** 0.5 * 2
        assert target[i].flatten().tolist() == pytest.approx([expected] * 4, abs=1e-5)


def test_noised_agrees_with_the_scheduler(model):
    x0, noise, times = (
        noise_of(1)[None].repeat(3, 1, 1, 1),
        noise_of(2)[None].repeat(3, 1, 1, 1),
        torch.tensor([1, 400, 990]),
    )
    noised, target = model.noised(x0, noise, times)
    from diffusers import DDPMScheduler

    ddpm = DDPMScheduler.from_config(model.pipe.scheduler.config)
    assert torch.allclose(noised, ddpm.add_noise(x0, noise, times), atol=1e-5)
    if model.prediction_type == "v_prediction":
        assert torch.allclose(target, ddpm.get_velocity(x0, noise, times), atol=1e-5)


def test_a_perfect_denoiser_has_no_error_and_samples_the_picture(model, monkeypatch):
    """Training target and sampler use the same schedule and prediction type.

    So the exact prediction has error 0 and sampling returns x0.
    """
    x0 = torch.stack([noise_of(7), noise_of(8)])
    monkeypatch.setattr(model, "denoiser", PerfectDenoiser(x0, model.prediction_type))
    times = torch.tensor([20, 800])
    noised, target = model.noised(x0, torch.stack([noise_of(1), noise_of(2)]), times)
    assert torch.allclose(model.predict(noised, times, model.encode_prompts(PROMPTS[:2])), target, atol=1e-4)
    sampled = model.sample(PROMPTS[:2], SEEDS[:2], SAMPLING.model_copy(update={"guidance": 1.0, "steps": 8}))
    assert torch.allclose(sampled, x0, atol=1e-3)


def test_times_are_uniform_and_reproducible(eps_model):
    times = eps_model.draw_timesteps(20_000, torch.Generator().manual_seed(0))
    assert times.shape == (20_000,) and times.min() == 0 and times.max() == 999
    assert float(times.float().mean()) == pytest.approx(499.5, abs=10)
    assert torch.equal(times, eps_model.draw_timesteps(20_000, torch.Generator().manual_seed(0)))


# --- prediction ---


def test_predict_is_the_denoisers_raw_output(model):
    x, times = torch.stack([noise_of(1), noise_of(2)]), torch.tensor([10, 700])
    cond = model.encode_prompts(PROMPTS[:2])
    with torch.no_grad():
        found = model.predict(x, times, cond)
        one_by_one = [
            model.denoiser(x[i : i + 1], times[i], cond["encoder_hidden_states"][i : i + 1]).sample for i in range(2)
        ]
    assert found.dtype == torch.float32 and torch.allclose(found, torch.cat(one_by_one), atol=1e-5)


def test_bf16_is_close_but_not_equal(eps_model, monkeypatch):
    x, times, cond = noise_of(1)[None], torch.tensor([300]), eps_model.encode_prompts(PROMPTS[:1])
    with torch.no_grad():
        exact = eps_model.predict(x, times, cond)
        monkeypatch.setattr(eps_model, "precision", "bf16")
        rough = eps_model.predict(x, times, cond)
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).abs().max() / exact.abs().max()) < 0.05


def test_bf16_stores_the_denoiser_in_bf16_and_keeps_the_fingerprint():
    """The fingerprint is of the weights as loaded, so it does not depend on the precision."""
    exact, rough = tiny_text_to_image(), tiny_text_to_image(precision="bf16")
    assert {p.dtype for p in rough.denoiser.parameters()} == {torch.bfloat16}
    assert {p.dtype for m in (rough.pipe.vae, rough.pipe.text_encoder) for p in m.parameters()} == {torch.float32}
    assert rough.fingerprint == exact.fingerprint
    x, times, cond = noise_of(1)[None], torch.tensor([300]), exact.encode_prompts(PROMPTS[:1])
    with torch.no_grad():
        found, wanted = rough.predict(x, times, cond), exact.predict(x, times, cond)
    assert found.dtype == torch.float32 and 0 < float((found - wanted).abs().max() / wanted.abs().max()) < 0.05


def test_every_weight_is_frozen(model):
    parts = (model.denoiser, model.pipe.vae, model.pipe.text_encoder)
    assert not any(p.requires_grad for m in parts for p in m.parameters()) and not any(m.training for m in parts)


# --- prompts ---


def test_each_prompt_is_encoded_once():
    model, calls = tiny_text_to_image(), []
    model.pipe.text_encoder.register_forward_hook(lambda _m, _a, _o: calls.append(1))
    first = model.encode_prompts(["a bear", "a robot", "a bear"])["encoder_hidden_states"]
    assert first.shape == (3, 24, 128) and len(calls) == 2
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    again = model.encode_prompts(["a robot", "a bear", "a bottle"])["encoder_hidden_states"]
    assert len(calls) == 3 and torch.equal(again[0], first[1]) and torch.equal(again[1], first[0])


def test_encoding_is_the_pipelines(eps_model):
    expected, _ = eps_model.pipe.encode_prompt(PROMPTS, "cpu", 1, False)
    assert torch.allclose(eps_model.encode_prompts(PROMPTS)["encoder_hidden_states"], expected, atol=1e-5)


# --- sampling ---


def test_the_scheduler_config_of_stable_diffusion_1_is_accepted():
    """Such folders name PNDM; its noise schedule is used, but sampling is by DPM-Solver++."""
    from diffusers import PNDMScheduler

    pipe = tiny_stable_diffusion()
    pipe.scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        set_alpha_to_one=False,
    )
    model = DiffusersTextToImage(pipe)
    assert np.abs(model.alphas.numpy() - alphas_by_hand()).max() < 1e-6
    x0 = noise_of(7)[None]
    model.denoiser = PerfectDenoiser(x0, "epsilon")
    sampled = model.sample(PROMPTS[:1], SEEDS[:1], SAMPLING.model_copy(update={"guidance": 1.0, "steps": 8}))
    assert torch.allclose(sampled, x0, atol=1e-3)


# --- pictures ---


def kl_pipeline():
    """The tiny pipeline with Stable Diffusion's own kind of VAE and its scaling factor."""
    from diffusers import AutoencoderKL

    pipe = tiny_stable_diffusion()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.vae = AutoencoderKL(
            block_out_channels=(8, 8, 8),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
        )
    assert pipe.vae.config.scaling_factor == 0.18215
    return pipe


@pytest.mark.parametrize("build", [tiny_stable_diffusion, kl_pipeline], ids=["tiny", "kl"])
def test_pictures_and_latents_by_the_vae(build):
    model = DiffusersTextToImage(build())
    vae, factor = model.pipe.vae, model.pipe.vae.config.scaling_factor
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 * 2 - 1
        encoded = vae.encode(scaled)
        expected = (encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean) * factor
        latents = model.encode_images(images)
        assert latents.shape == (2, 4, 16, 16) and torch.allclose(latents, expected, atol=1e-5)
        pixels = ((vae.decode(latents / factor).sample / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    decoded = model.decode(latents)
    assert decoded.dtype == np.uint8 and decoded.shape == (2, 64, 64, 3) and decoded.std() > 0
    assert np.abs(decoded.astype(int) - pixels).max() <= 1


def test_decoding_in_parts_changes_nothing(eps_model, monkeypatch):
    latents, sizes = torch.stack([noise_of(s) for s in range(5)]), []
    whole = eps_model.decode(latents)
    decode = eps_model.pipe.vae.decode
    monkeypatch.setattr(eps_model.pipe.vae, "decode", lambda part: sizes.append(len(part)) or decode(part))
    for limit, expected in ((64 * 64 * 2, [2, 2, 1]), (1, [1] * 5)):
        sizes.clear()
        monkeypatch.setattr(backend, "_DECODE_PIXELS_CPU", limit)
        assert np.abs(eps_model.decode(latents).astype(int) - whole).max() <= 1 and sizes == expected


# --- identity ---


def test_the_fingerprint_depends_on_weights_and_prediction_type_and_not_on_threads(model):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert tiny_text_to_image(model.prediction_type).fingerprint == model.fingerprint
    finally:
        torch.set_num_threads(threads)
    other_kind = {"epsilon": "v_prediction", "v_prediction": "epsilon"}[model.prediction_type]
    assert tiny_text_to_image(other_kind).fingerprint != model.fingerprint
    assert tiny_text_to_image(model.prediction_type, seed=1).fingerprint != model.fingerprint


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_the_fingerprint_sees_one_changed_weight_far_inside(part):
    pipe = tiny_stable_diffusion()
    before = DiffusersTextToImage(pipe).fingerprint
    weight = max(getattr(pipe, part).parameters(), key=torch.numel)
    weight.data[(-1,) * weight.ndim] += 1e-3  # by index: with channels last, flatten would copy
    assert DiffusersTextToImage(pipe).fingerprint != before
