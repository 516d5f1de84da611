"""Tests trackers and sample grids by a config: refusals before anything loads, the files of a run, equal numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from projects import config_of, make_project
from pydantic import ValidationError
from safetensors.torch import load_file

from dreambooth_dpo.benchmarks.pipelines.tiny import tiny
from dreambooth_dpo.dpo_core.config import RunConfig
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import LoopSettings
from dreambooth_dpo.headless import loop_from_config, run_loop
from dreambooth_dpo.terminal.dry_run import dry_run

TRAIN = {"train__steps": 4, "train__sample_every": 2}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("headless") / "prøjekt"
    make_project(folder)
    tiny("ZImagePipeline").save_pretrained(folder / "z")
    return folder


def test_one_name_is_a_list_of_one(project: Path) -> None:
    assert config_of(project).log_with == ()
    given = [config_of(project, log_with=value).log_with for value in ("tensorboard", ["tensorboard", "wandb"], None)]
    assert given == [("tensorboard",), ("tensorboard", "wandb"), ()]
    with pytest.raises((ValidationError, UserError), match="log_with"):
        config_of(project, log_with=3)


def test_it_is_no_setting_of_the_loop() -> None:
    """What a run depends on is in LoopSettings (run/same_run.py): a run may be resumed with other trackers."""
    assert "log_with" in RunConfig.model_fields and "log_with" not in LoopSettings.model_fields


@pytest.mark.parametrize("opened", [loop_from_config, dry_run])
def test_an_unknown_tracker_is_refused_before_the_model_is_looked_at(project: Path, opened) -> None:
    config = config_of(project, log_with="tensorbord", model={"path": "nirgends"}, output="nie")
    with pytest.raises(UserError, match="log_with is 'tensorbord', which accelerate does not know"):
        opened(config, False)
    assert not config.output.exists()


Z_IMAGE = {"model": {"path": "z", "device": "cpu"}, "sampling__guidance": 3.0, "adapter__targets": "attention"}


@pytest.mark.parametrize("model", [{}, pytest.param(Z_IMAGE, marks=pytest.mark.slow)], ids=["sd", "z_image"])
def test_a_run_with_tracker_and_grids_has_the_same_lora(project: Path, model: dict) -> None:
    """A StableDiffusionPipeline, and a pipeline that is drawn by its own call; the second run adds a tracker."""
    pytest.importorskip("tensorboard")
    name = model.get("model", {}).get("path", "sd")
    plain, _ = run_loop(loop_from_config(config_of(project, output=f"{name}_ohne", **model, train__steps=4), False))
    config = config_of(project, output=f"{name}_mit", **model, **TRAIN, log_with="tensorboard")
    shown, _ = run_loop(loop_from_config(config, False))
    for key, tensor in load_file(shown).items():
        assert torch.equal(tensor, load_file(plain)[key]), key
    grids = sorted(p.name for p in (config.output / "round_0" / "samples").iterdir())
    assert grids == ["step_000002.png", "step_000004.png"]
    assert list((config.output / "logs" / "dreambooth_dpo").glob("events.*"))
    # Without the tracker it is the same run, and so it is with other grids.
    again = config_of(project, output=f"{name}_mit", **model, train__steps=4)
    assert run_loop(loop_from_config(again, True))[0].read_bytes() == shown.read_bytes()
