"""Tests personalization from a config: how the start is measured, what is written, and that it is reused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loops import Mean
from PIL import Image
from projects import config_of, make_project

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.loop.start import photos_fidelity, start_probe
from dreambooth_dpo.dpo_core.prompts import PromptSet
from dreambooth_dpo.dpo_core.settings import SamplingSettings
from dreambooth_dpo.dpo_core.training.lora_files import read_lora
from dreambooth_dpo.headless import parts_from_config, personalize_from_config


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "prøjekt"
    make_project(folder)
    return folder


def test_photos_are_scored_against_the_other_photos() -> None:
    """Three references with mean cosine 0.7 to all three, themselves included: (3 * 0.7 - 1) / 2 = 0.55."""

    class Fixed(Mean):
        def score(self, images, prompts):
            return np.full(len(images), 0.7)

    photos = np.stack([np.full((8, 8, 3), grey, np.uint8) for grey in range(3)])
    assert photos_fidelity(Fixed("fidelity", 0), Concept("sks", "robot", photos)) == pytest.approx(0.55)
    assert photos_fidelity(Fixed("fidelity", 0), Concept("sks", "robot", photos, photos[:2])) == pytest.approx(0.7)
    # One photo, also if it is given twice, could only be compared with itself.
    for one in (photos[:1], photos[[0, 0]]):
        assert photos_fidelity(Fixed("fidelity", 0), Concept("sks", "robot", one)) is None
    # With masks no photo is compared with itself, so nothing is removed.
    masks = np.full((3, 8, 8), 255, np.uint8)
    assert photos_fidelity(Fixed("fidelity", 0), Concept("sks", "robot", photos, masks=masks)) == pytest.approx(0.7)


def test_probe_uses_every_second_held_out_prompt() -> None:
    probe = start_probe(PromptSet(("t",), ("a", "b", "c")), SamplingSettings(), [])
    assert probe.prompts == ["a", "a", "a", "c", "c", "c"] and len(set(probe.seeds)) == 6


def test_personalization_writes_lora_curve_and_record_and_is_reused(project: Path) -> None:
    config = config_of(project)
    told = []
    lora, record = personalize_from_config(config, None, lambda stage, *_, **__: told.append(stage))
    assert lora == project / "läufe" / "erster_start" / "start.safetensors"
    assert [p["step"] for p in record["curve"]][:3] == [0, 2, 4]
    assert {"step", "fidelity", "alignment"} == record["curve"][0].keys() and record["sentence"].startswith(
        "Personalized in"
    )
    with Image.open(lora.with_name("curve.png")) as curve:
        assert curve.size[0] >= 400
    assert any(float(v.abs().max()) > 0 for k, v in read_lora(lora).items() if k.endswith("lora_up.weight"))
    assert told
    again = []
    assert (
        personalize_from_config(config, None, lambda stage, *_, **__: again.append(stage)) == (lora, record)
        and again == []
    )
    with pytest.raises(UserError, match=r"other settings: personalize\.steps.*--out"):
        personalize_from_config(config_of(project, personalize__steps=5))

    # `run` merges its LoRA into the model, which changes the model's fingerprint.
    plain = parts_from_config(config_of(project)).model.fingerprint
    assert parts_from_config(config_of(project, model__lora=str(lora))).model.fingerprint != plain
