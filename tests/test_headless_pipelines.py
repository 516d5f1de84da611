"""Tests a whole run on a pipeline that is no Stable Diffusion: config to LoRA and report, resume, `evaluate`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from projects import config_of, make_project, write_config
from safetensors.torch import load_file

from dreambooth_dpo.benchmarks.pipelines.tiny import tiny
from dreambooth_dpo.dpo_core.config import read_config
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.families import family_of
from dreambooth_dpo.headless import evaluate_lora, loop_from_config, run_loop, settled_config

CHANGES = {"model": {"path": "z", "device": "cpu"}, "sampling__guidance": 3.0, "adapter__targets": "attention"}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("headless") / "prøjekt"
    make_project(folder)
    tiny("ZImagePipeline").save_pretrained(folder / "z")
    return folder


def test_settings_that_are_not_given_are_the_familys(project: Path) -> None:
    file = write_config(project, "kurz.yaml", **CHANGES)
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    data["sampling"] = {"width": 64, "height": 64}
    data["train"] = {"steps": 2}
    del data["adapter"]
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    config = settled_config(read_config(file))
    assert (config.sampling.width, config.train.steps) == (64, 2)
    family = family_of("ZImagePipeline", "flow")
    assert (config.sampling.steps, config.sampling.guidance) == (family.steps.value, family.guidance.value)
    assert (config.train.auto_beta, config.train.time_sampling) == ("on", family.time_sampling.value)
    assert (config.train.learning_rate, config.adapter.rank) == (family.learning_rate.value, family.rank.value)
    assert settled_config(config_of(project)).train.auto_beta == "off"


def test_a_run_writes_a_lora_that_its_pipeline_loads_and_resumes_to_the_same(project: Path) -> None:
    config = config_of(project, output="ganz", **CHANGES)
    lora, report = run_loop(loop_from_config(config, resume=False))
    tensors = load_file(lora)
    assert all(key.startswith("transformer.") and ".lora_" in key for key in tensors)
    pipe = tiny("ZImagePipeline")
    pipe.load_lora_weights(str(lora.parent), weight_name=lora.name)
    assert report["rounds"] == 1 and {"before", "after"} <= report["fidelity"].keys()

    half = config_of(project, output="halb", **CHANGES)
    loop = loop_from_config(half, resume=False)
    loop.begin(0)
    loop.evaluate(0)
    loop.candidates(0)
    again, _ = run_loop(loop_from_config(half, resume=True))
    for key, tensor in load_file(again).items():
        assert torch.equal(tensor, tensors[key])

    measured = evaluate_lora(config_of(project, output="gemessen", **CHANGES), lora, resume=False)
    assert measured["fidelity"] == report["fidelity"]


def test_a_size_that_the_pipeline_would_make_smaller_is_refused(project: Path) -> None:
    config = config_of(project, **CHANGES, sampling__width=72)
    with pytest.raises(UserError, match=r"is 72x64, but ZImagePipeline draws sizes that 16 divides\. Set it to 64x64"):
        loop_from_config(config, resume=False)


def test_a_run_whose_model_is_missing_is_refused_before_photos_are_read(project: Path) -> None:
    config = config_of(project, model={"path": "nirgends", "device": "cpu"}, output="nie")
    with pytest.raises(UserError, match=r"nirgends has no model_index\.json"):
        loop_from_config(config, resume=False)
