"""Tests the shipped models: small, safe to load, and good enough for the oracle's verdicts to be meaningful."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.toybox.models import weights_folder
from dreambooth_dpo.toybox.shipped import FEW_STEPS, PARTS, WEIGHTS
from dreambooth_dpo.toybox.train.quality import base_quality, few_steps_quality, retrieval

FILES = sorted(WEIGHTS.rglob("*.safetensors"))


def test_weights_are_half_precision_safetensors_below_16_mb():
    assert len(FILES) == 6  # VAE, text encoder, UNet, reward, judge, LoRA for few steps
    assert sum(f.stat().st_size for f in WEIGHTS.rglob("*") if f.is_file()) <= 16e6
    for path in FILES:
        with safe_open(path, "np") as file:
            kinds = {file.get_tensor(k).dtype for k in file.keys()}
        assert np.dtype(np.float32) not in kinds and np.dtype(np.float16) in kinds, path


def test_base_model_follows_captions():
    """Fifty fresh captions at fixed seeds; the bounds are the targets that the models were trained to reach."""
    quality = base_quality(weights_folder("pipeline"), count=50)
    assert quality["background"] >= 0.95
    assert quality["body"] >= 0.9 and quality["belly"] >= 0.9


def test_the_lora_for_few_steps_draws_better_in_two_steps():
    """Forty fresh captions at fixed seeds, two steps and no guidance: with the LoRA, without it."""
    found = few_steps_quality(weights_folder("pipeline"), FEW_STEPS, count=40)
    assert found["with the LoRA"] >= found["without"] + 0.1


@pytest.mark.parametrize(("part", "least"), [("reward", 0.45), ("judge", 0.6)])
def test_scorers_retrieve_the_caption_among_500(part: str, least: float):
    assert retrieval(weights_folder(part)) >= least


def test_missing_weights_message_says_how_to_make_them(tmp_path: Path):
    with pytest.raises(UserError, match=r"toybox\.train"):
        weights_folder(PARTS[0], tmp_path)
    with pytest.raises(UserError, match="unet"):
        weights_folder("unet")
