"""The user's LoRA at another strength, on the toybox's pipeline: the weights are those of a load at that strength."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import SamplingSettings
from dreambooth_dpo.toybox.models import weights_folder

SETTINGS = SamplingSettings(steps=2, guidance=1.0, width=64, height=64)
PROMPT = ["a photo of a red robot"]


@pytest.fixture(scope="module")
def lora(tmp_path_factory) -> Path:
    """A LoRA of rank 2 on the attention of UNet and text encoder."""
    pipe, tensors, draws = load_pipeline(weights_folder("pipeline")), {}, torch.Generator().manual_seed(1)
    for part, prefix, ending in (("unet", "lora_unet_", "to_q"), ("text_encoder", "lora_te_text_model_", "q_proj")):
        for name, module in getattr(pipe, part).named_modules():
            if name.endswith(ending):
                key, (out, wide) = prefix + name.removeprefix("text_model.").replace(".", "_"), module.weight.shape
                tensors[f"{key}.lora_down.weight"] = 0.2 * torch.randn(2, wide, generator=draws)
                tensors[f"{key}.lora_up.weight"] = 0.2 * torch.randn(out, 2, generator=draws)
    path = tmp_path_factory.mktemp("lora") / "mine.safetensors"
    save_file(tensors, path)
    return path


def weights(model: DiffusersTextToImage) -> dict[str, torch.Tensor]:
    parts = (("unet", model.pipe.unet), ("text", model.pipe.text_encoder))
    return {f"{p}.{n}": v.clone() for p, module in parts for n, v in module.state_dict().items()}


def loaded(lora: Path, strength: float) -> DiffusersTextToImage:
    model = DiffusersTextToImage(load_pipeline(weights_folder("pipeline"), "cpu", lora, strength))
    model.set_loras({lora: strength})
    return model


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5])
def test_the_weights_are_those_of_a_load_at_that_strength(lora: Path, factor: float) -> None:
    """A LoRA at 0.8, drawn at `factor` of that: weights, and latents of a prompt that was encoded before."""
    model, other = loaded(lora, 0.8), loaded(lora, 0.8 * factor)
    before, first = weights(model), model.sample(PROMPT, [3], SETTINGS)
    with model.at_lora_strength(factor):
        inside, drawn = weights(model), model.sample(PROMPT, [3], SETTINGS)
    wanted = weights(other)
    assert max(float((inside[k] - wanted[k]).abs().max()) for k in wanted) < 1e-6
    assert float((drawn - other.sample(PROMPT, [3], SETTINGS)).abs().max()) < 1e-3 < float((drawn - first).abs().max())
    after = weights(model)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(model.sample(PROMPT, [3], SETTINGS), first)


def test_weights_return_after_an_error(lora: Path) -> None:
    model = loaded(lora, 1.0)
    before = weights(model)
    with pytest.raises(KeyboardInterrupt), model.at_lora_strength(0.0):
        raise KeyboardInterrupt
    assert all(torch.equal(before[k], v) for k, v in weights(model).items())


@pytest.mark.parametrize(
    ("trouble", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (torch.OutOfMemoryError("no more"), UserError)]
)
def test_weights_return_when_putting_the_change_on_fails_half_way(lora, monkeypatch, trouble, raised) -> None:
    from dreambooth_dpo.dpo_core.backends.diffusers import strength

    model, change, calls = loaded(lora, 1.0), strength.lora_change, []

    def failing(*given):
        calls.append(given)
        if len(calls) == 3:
            raise trouble
        return change(*given)

    before = weights(model)
    model.set_candidate_lora(lora, 0.5)
    monkeypatch.setattr(strength, "lora_change", failing)
    with pytest.raises(raised), model.for_candidates():
        pytest.fail("nothing may be drawn")
    assert len(calls) == 3 and all(torch.equal(before[k], v) for k, v in weights(model).items())


def test_a_model_without_a_lora_says_so(lora: Path) -> None:
    model = DiffusersTextToImage(load_pipeline(weights_folder("pipeline")))
    assert "has no LoRA of yours (model.lora)" in model.fixed_strength
    model.set_loras({lora: 0.0})
    assert model.fixed_strength
    assert loaded(lora, 1.0).fixed_strength == ""


def test_the_lora_for_candidates_acts_inside_alone_and_beside_another_strength(lora: Path, tmp_path: Path) -> None:
    """The user's LoRA at 0.8, and the same file at 0.5 for candidates: inside, the weights of a load at 1.3.

    With the user's LoRA off as well, those of a load at 0.5.
    """
    model = loaded(lora, 0.8)
    assert model.candidate_lora == ""
    with model.for_candidates():
        pass  # without one nothing changes
    model.set_candidate_lora(lora, 0.5)
    before = weights(model)
    with model.for_candidates():
        alone = weights(model)
        with model.at_lora_strength(0.0):
            both = weights(model)
    for found, strength in ((alone, 1.3), (both, 0.5)):
        wanted = weights(loaded(lora, strength))
        assert max(float((found[k] - wanted[k]).abs().max()) for k in wanted) < 1e-6
    assert all(torch.equal(before[k], v) for k, v in weights(model).items())
    first = model.candidate_lora
    model.set_candidate_lora(lora, 0.4)
    assert first.endswith(" at 0.5") and model.candidate_lora.endswith(" at 0.4")


def test_a_lora_for_candidates_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    key = "lora_unet_mid_block_9_attentions_0_proj_in"
    save_file({f"{key}.lora_down.weight": torch.ones(1, 4), f"{key}.lora_up.weight": torch.ones(4, 1)}, path)
    model = DiffusersTextToImage(load_pipeline(weights_folder("pipeline")))
    with pytest.raises(UserError, match="does not fit this model"):
        model.set_candidate_lora(path, 1.0)
    assert model.candidate_lora == ""
