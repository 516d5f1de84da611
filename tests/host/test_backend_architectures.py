"""Prediction kinds (eps, v, flow) and architectures (SD, SDXL, Flux) on tiny MODELs of random weights."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from native_models import ADAPTER, PROMPTS, furthest, left_behind, noise, random_live, random_model

from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage, lora_prefixes, with_live_adapter
from dreambooth_dpo.dpo_core.backends.comfyui.conditioning import joined
from dreambooth_dpo.dpo_core.backends.comfyui.prediction import noised, raw_prediction
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import SamplingSettings, TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData
from dreambooth_dpo.dpo_core.training.lora_files import lora_tensors
from dreambooth_dpo.dpo_core.training.memory.checkpointing import gradient_checkpointing
from dreambooth_dpo.dpo_core.training.self_test import self_test
from dreambooth_dpo.dpo_core.training.trainer import Trainer
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")

MODELS = [("sd", "EPS"), ("sd", "V_PREDICTION"), ("sd", "FLOW"), ("sdxl", "EPS"), ("flux", "FLUX")]
DRAWING = SamplingSettings(steps=2, guidance=1.0, width=64, height=64)


@pytest.fixture(scope="module")
def text_encoder(comfyui: Path):
    return native_toybox()[1]


@pytest.fixture
def backend(request, text_encoder) -> ComfyTextToImage:
    """A backend of the `kind` and model type that the test is marked with; latents [4 or 16, 16, 16]."""
    made = ComfyTextToImage(random_model(*request.param), text_encoder, None, 128, 128, "euler", "normal")
    assert made.latent_shape[1:] == (16, 16)
    return made


def pairs(backend: ComfyTextToImage) -> PairData:
    latents = noise(4, *backend.latent_shape, seed=6)
    return PairData(latents[:2], latents[2:], backend.encode_prompts(PROMPTS[:2]))


# --- noising and prediction ---


@pytest.mark.parametrize(
    ("kind", "sigma", "x", "target"),
    [
        ("eps", 4.0, 2 + 4 * 3, 3),
        ("v", 0.75, 2 + 0.75 * 3, (3 - 0.75 * 2) / 1.25),  # sqrt(1 + 0.75^2) = 1.25
        ("flow", 0.25, 0.75 * 2 + 0.25 * 3, 3 - 2),
    ],
)
def test_noising_by_hand(kind, sigma, x, target):
    """x0 = 2 and noise = 3; if the denoised picture equals x0, the network output is the training target."""
    x0, drawn, sigmas = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0), torch.tensor([sigma])
    got, wanted = noised(kind, x0, drawn, sigmas)
    assert (got.item(), wanted.item()) == pytest.approx((x, target))
    assert raw_prediction(kind, got, x0, sigmas).item() == pytest.approx(target)


def test_every_sample_has_its_own_sigma():
    x0, drawn = torch.full((2, 1, 2, 2), 2.0), torch.full((2, 1, 2, 2), 3.0)
    x, target = noised("flow", x0, drawn, torch.tensor([0.25, 1.0]))
    assert x[:, 0, 0, 0].tolist() == [2.25, 3.0] and target.unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("backend", "kind"),
    [(m, k) for m, k in zip(MODELS, ["eps", "v", "flow", "eps", "flow"], strict=True)],
    indirect=["backend"],
)
def test_the_raw_prediction_equals_the_network_output(backend, kind):
    """The raw prediction equals the network's output at all sigmas, including both ends.

    It is recovered from x - sigma * output, so the rounding error grows as 1 / sigma.
    Measured: below 5e-7 for sigma >= 0.3; 4e-6 at SD's smallest sigma, 0.029; 1.2e-4 at flow's, 0.001; 7e-4 at Flux',
    0.0003.
    """
    assert backend.kind == kind and backend.precision == "fp32"
    with backend.training(), torch.no_grad():
        said = []
        hook = backend.denoiser.register_forward_hook(lambda _m, _a, output: said.append(output.clone()))
        table = backend.model_sampling.sigmas
        sigmas = table[torch.linspace(0, len(table) - 1, 12).long()]
        x, _ = backend.noised(noise(12, *backend.latent_shape), noise(12, *backend.latent_shape, seed=1), sigmas)
        raw = backend.predict(x, sigmas, backend.encode_prompts(PROMPTS * 3))
        hook.remove()
    off = (raw - said[0]).abs().flatten(1).amax(1)
    assert (off < 1e-6 + 5e-7 / sigmas).all(), off
    assert off[sigmas > 0.2].max() < 1e-5 and said[0].std() > 0.5


@pytest.mark.parametrize("model_type", ["EDM", "IMG_TO_IMG"])
def test_other_prediction_kinds_are_refused(model_type):
    with pytest.raises(
        UserError,
        match=r"models of type ModelSampling\w+ (EDM|IMG_TO_IMG) cannot be trained here; eps, v, flow and Cosmos",
    ):
        ComfyTextToImage(random_model(model_type=model_type))


@pytest.mark.parametrize("sampling", ["x0", "lcm"])
def test_other_prediction_kinds_set_by_a_patch_are_refused(sampling):
    """LCM inherits from EPS but computes the denoised picture differently."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    (patched,) = ModelSamplingDiscrete().patch(random_model(), sampling, False)
    with pytest.raises(UserError, match=f"{sampling.upper()} cannot be trained"):
        ComfyTextToImage(patched)


def test_a_patched_prediction_kind_is_used_before_the_model_is_loaded():
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, ModelSamplingSD3

    (as_v,) = ModelSamplingDiscrete().patch(random_model(), "v_prediction", True)
    backend = ComfyTextToImage(as_v)
    assert (
        backend.kind == "v" and backend.draw_timesteps(4000, torch.Generator().manual_seed(0)).max() > 1000
    )  # zero terminal SNR
    (shifted,) = ModelSamplingSD3().patch(random_model(model_type="FLOW"), 3.0)
    drawn = ComfyTextToImage(shifted).draw_timesteps(4000, torch.Generator().manual_seed(0))
    # Uniform t, shifted: 3 t / (1 + 2 t), whose median is 0.75.
    assert drawn.median() == pytest.approx(0.75, abs=0.02) and drawn.max() <= 1


# --- architectures ---


@pytest.mark.parametrize("backend", MODELS, indirect=True)
def test_training_conditions_as_the_sampler_does(backend):
    """Training passes the denoiser the same conditioning as sampling does for a batch of prompts.

    That includes SDXL's `y`, which contains the size, and Flux' `guidance`, 3.5.
    """
    seen = []
    backend.patcher.set_model_unet_function_wrapper(
        lambda apply, a: seen.append(a["c"]) or apply(a["input"], a["timestep"], **a["c"])
    )
    expected = {"sd": {"c_crossattn"}, "sdxl": {"c_crossattn", "y"}, "flux": {"c_crossattn", "y", "guidance"}}
    for number, prompt in enumerate(PROMPTS):
        seen.clear()
        backend.sample([prompt] * 2, [number, number + 1], DRAWING)
        with backend.training():
            row = int(backend.encode_prompts([prompt])["row"])
        cond = joined([backend._conds[row]])
        given = {k: v for k, v in seen[0].items() if k != "transformer_options"}
        assert cond.keys() == given.keys() and set(cond) in expected.values()
        for key, value in given.items():
            # In one call the sampler has the prompt for both pictures, and the negative prompt.
            assert any(torch.equal(cond[key].expand_as(rows), rows) for rows in value.chunk(len(value) // 2)), key


def test_sdxl_is_conditioned_on_the_size(text_encoder):
    """SDXL's conditioning differs between 128 and 256 pixels: six numbers of 256 values each after the pooled text."""
    model = random_model("sdxl")
    with (small := ComfyTextToImage(model, text_encoder, None, 128, 128)).training():
        small.encode_prompts(PROMPTS[:1])
        one = small._conds[0]["y"].cond
    with (large := ComfyTextToImage(model, text_encoder, None, 256, 128)).training():
        large.encode_prompts(PROMPTS[:1])
        other = large._conds[0]["y"].cond
    assert one.shape == (1, 128 + 6 * 256) and torch.equal(one[:, :384], other[:, :384])
    changed = [not torch.equal(*(y[:, 128 + i * 256 : 384 + i * 256] for y in (one, other))) for i in range(6)]
    assert changed == [False, True, False, False, False, True]  # height, width, crop twice, target height, target width


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("backend", MODELS, indirect=True)
def test_a_step_reaches_every_layer_and_gradients_are_right(backend, checkpointing):
    """Measured relative errors of the gradient: 6e-4 at most."""
    with backend.training(), gradient_checkpointing(backend.denoiser) if checkpointing else nullcontext():
        adapter = Adapter(backend.denoiser, ADAPTER, device=backend.device)
        data = pairs(backend)
        error = self_test(backend, adapter, data, "checkpointing" if checkpointing else "fast")
        trainer = Trainer(backend, adapter, data, TrainSettings(batch_size=2, warmup_steps=0, learning_rate=1e-3), 7)
        with adapter.attached():
            trainer.step(0)
        still = [name for name, layer in adapter.policy.items() if not layer.up.any()]
    assert error < 0.01 and not still, still
    assert not left_behind(backend.patcher)


@pytest.mark.parametrize("compute", [None, torch.float32])
@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_bfloat16_weights_train(text_encoder, kind, compute):
    """Training computes in bfloat16 and casts to float32; the adapter stays float32 and starts bit-identical."""
    model = random_model(kind, "EPS" if kind == "sd" else "FLUX", torch.bfloat16, compute)
    backend = ComfyTextToImage(model, text_encoder, None, 128, 128)
    assert backend.precision == ("fp32" if compute else "bfloat16")
    with backend.training():
        adapter = Adapter(backend.denoiser, ADAPTER, device=backend.device)
        data, times = pairs(backend), backend.draw_timesteps(2, torch.Generator().manual_seed(0))
        with torch.no_grad():
            base = backend.predict(data.winners, times, data.cond)
            with adapter.attached():
                assert (
                    torch.equal(backend.predict(data.winners, times, data.cond), base) and base.dtype == torch.float32
                )
        assert self_test(backend, adapter, data, "fast") < (0.02 if compute else 0.1)
        trainer = Trainer(backend, adapter, data, TrainSettings(batch_size=2, warmup_steps=0, learning_rate=1e-3), 7)
        with adapter.attached():
            trainer.step(0)
        assert all(layer.up.any() and layer.up.dtype == torch.float32 for layer in adapter.policy.values())


@pytest.mark.parametrize("backend", MODELS, indirect=True)
def test_the_lora_file_acts_like_the_live_adapter(backend):
    """The saved LoRA draws what the live adapter draws.

    Measured over two steps: at most 4e-6 of the latents' size, against a change of 2 to 10 %.
    """
    import comfy.sd

    model, live = backend.patcher, random_live(backend.patcher)
    adapter = Adapter(backend.denoiser, ADAPTER)
    adapter.load(live.state)
    tensors = lora_tensors(adapter, lora_prefixes(model.model, adapter.layers))
    patched, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0)
    assert len(patched.patches) == len(adapter.layers)
    drawn = [
        ComfyTextToImage(m, backend.clip, None, 128, 128, "euler", "normal").sample(PROMPTS, [1, 2, 3, 4], DRAWING)
        for m in (model, patched, with_live_adapter(model, live))
    ]
    size = float(drawn[0].abs().max())
    assert furthest(drawn[1], drawn[2]) < 2e-5 * size < 0.01 * size < furthest(drawn[0], drawn[2])
