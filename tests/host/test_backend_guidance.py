"""Guidance in part of the steps (guidance_until) on ComfyUI's sampling: forwards that run, and equal results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from native_models import DRAWING, PROMPTS, furthest, left_behind, noise, random_live, random_model

from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage, with_live_adapter
from dreambooth_dpo.dpo_core.backends.comfyui.model import BATCH_INVARIANT
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")

SEEDS = [1, 2, 3]
# Two of four steps are guided: 2 rows per picture, then 1. heun also evaluates the end of a step, where the next one
# starts, and dpm_2 its middle; neither does so in the last step.
ROWS = {"heun": [2, 2, 2, 1, 1, 1, 1], "dpm_2": [2, 2, 2, 2, 1, 1, 1]}


@pytest.fixture(scope="module")
def toybox(comfyui: Path):
    """MODEL, CLIP and VAE of the toybox, made under inference mode as a node makes them."""
    with torch.inference_mode():
        return native_toybox()


@pytest.fixture
def native(toybox) -> ComfyTextToImage:
    return ComfyTextToImage(*toybox, 64, 64, negative="a blue bear")


def until(share: float, **changes):
    return DRAWING.model_copy(update={"guidance_until": share, **changes})


def drawn(native: ComfyTextToImage, settings) -> tuple[torch.Tensor, list[int]]:
    """Latents of three pictures, and the number of rows per picture in each forward of the denoiser."""
    rows: list[float] = []
    handle = native.denoiser.register_forward_pre_hook(lambda _m, args: rows.append(len(args[0]) / 3))
    try:
        return native.sample(PROMPTS[:3], SEEDS, settings), rows
    finally:
        handle.remove()


@pytest.mark.parametrize("sampler", BATCH_INVARIANT)
def test_unguided_steps_skip_the_forward_of_the_negative_prompt(native, sampler):
    native.sampler = sampler
    rows = ROWS.get(sampler, [2, 2, 1, 1])
    assert drawn(native, until(0.5))[1] == rows
    assert drawn(native, until(1.0))[1] == [2] * len(rows)


@pytest.mark.parametrize(("share", "guided"), [(0.9, 4), (0.7, 3), (0.25, 1), (0.1, 0), (0.0, 0)])
def test_guidance_until_is_rounded_to_whole_steps(native, share, guided):
    latents, rows = drawn(native, until(share))
    assert rows == [2] * guided + [1] * (4 - guided)
    if guided in (0, 4):  # the host's own path, at cfg 1 or at cfg 3 throughout
        assert torch.equal(latents, native.sample(PROMPTS[:3], SEEDS, until(1.0, guidance=3.0 if guided else 1.0)))


@pytest.mark.parametrize(("sampler", "scheduler"), [("euler", "normal"), ("ddim", "karras")])
def test_partial_guidance_equals_two_runs_of_the_stock_sampler(toybox, sampler, scheduler):
    """Partial guidance equals two runs of KSampler (Advanced), for samplers that keep no history.

    The first run does two steps at cfg 3 and keeps the leftover noise; the second does the other steps at cfg 1.
    """
    import comfy.sample

    from nodes import CLIPTextEncode

    native = ComfyTextToImage(*toybox, 64, 64, sampler, scheduler, negative="a bear")
    start = torch.stack([noise(4, 16, 16, seed=s) for s in SEEDS])
    cond, plain = (CLIPTextEncode().encode(toybox[1], text)[0] for text in (PROMPTS[0], "a bear"))

    def part(cfg: float, first: int, last: int, given: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        return comfy.sample.sample(
            toybox[0],
            given,
            4,
            cfg,
            sampler,
            scheduler,
            cond,
            plain,
            latent,
            start_step=first,
            last_step=last,
            seed=1,
            disable_pbar=True,
        )

    half = part(3.0, 0, 2, start, torch.zeros_like(start))
    whole = part(1.0, 2, 4, torch.zeros_like(start), half)
    latents = native.sample([PROMPTS[0]] * 3, SEEDS, until(0.5))
    assert furthest(latents, whole) < 1e-4
    assert furthest(latents, native.sample([PROMPTS[0]] * 3, SEEDS, until(1.0))) > 0.05
    assert furthest(latents, native.sample([PROMPTS[0]] * 3, SEEDS, until(1.0, guidance=1.0))) > 0.05


def test_a_candidate_depends_on_its_prompt_and_seed_only(native):
    apart = torch.cat([native.sample([p], [s], until(0.5)) for p, s in zip(PROMPTS[:3], SEEDS, strict=True)])
    assert furthest(native.sample(PROMPTS[:3], SEEDS, until(0.5)), apart) < 1e-4


def test_other_kinds_of_models(toybox):
    """A flow model, whose noise levels end at 1, and a v-prediction model. A transformer draws prompt by prompt."""
    third = pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3] * 3)
    for kind, type_, rows in (("flux", "FLUX", third), ("sd", "V_PREDICTION", [2, 2, 1, 1])):
        native = ComfyTextToImage(random_model(kind, type_), toybox[1], None, 64, 64, "euler", "simple")
        assert drawn(native, until(0.5))[1] == rows, kind


def test_live_adapters_and_step_callbacks_work_and_are_removed_afterwards(toybox, native):
    riding = ComfyTextToImage(
        with_live_adapter(toybox[0], random_live(toybox[0])), *toybox[1:], 64, 64, negative="a blue bear"
    )
    options = dict(toybox[0].model_options)
    plain, told, steps = native.sample(PROMPTS[:3], SEEDS, until(0.5)), [], []
    riding.watch = lambda step, of, denoised: told.append((step, of, tuple(denoised.shape)))
    assert furthest(riding.sample(PROMPTS[:3], SEEDS, until(0.5), steps.append), plain) > 0.1
    assert told == [(step, 4, (3, 4, 16, 16)) for step in (1, 2, 3, 4)] and steps == [1, 2, 3, 4]

    def interrupt(*_):
        raise KeyboardInterrupt

    riding.watch = interrupt
    with pytest.raises(KeyboardInterrupt):
        riding.sample(PROMPTS[:3], SEEDS, until(0.5))
    assert torch.equal(native.sample(PROMPTS[:3], SEEDS, until(0.5)), plain)
    assert not left_behind(toybox[0]) and toybox[0].model_options == options
