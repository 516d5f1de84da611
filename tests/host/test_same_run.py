"""One round headless and one in ComfyUI, from the same start: the same candidates, pairs and LoRA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hosting import Server, comfyui_path
from safetensors.torch import load_file
from toy_graphs import toy_loop_graph

from dreambooth_dpo.dpo_core.run_folder import RunFolder
from dreambooth_dpo.dpo_core.settings import StopSettings
from dreambooth_dpo.headless import finish
from dreambooth_dpo.toybox.concepts import concept_from_seed
from dreambooth_dpo.toybox.defaults import TOY_SETTINGS
from dreambooth_dpo.toybox.run import toy_loop

pytestmark = pytest.mark.usefixtures("comfyui")
# Where 999 / steps is whole, ComfyUI's sgm_uniform and diffusers' linspace are the same times.
STEPS, TRAINING = 9, 6
RATE = 2e-4


@pytest.fixture(scope="module")
def hosted(tmp_path_factory) -> Path:
    """The output folder of a server that ran a round."""
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("hosted")) as server:
        server.run(
            toy_loop_graph(
                sample={"steps": STEPS, "scheduler": "sgm_uniform", "run_name": "same"},
                pairs={"rule": TOY_SETTINGS.pairs.rule},
                train={"train_steps": TRAINING, "pairs_per_step": 8, "learning_rate": RATE, "schedule": "linear"},
                evaluate={"seeds_per_prompt": 1},
            )
        )
        return server.folder


@pytest.fixture(scope="module")
def headless(hosted: Path, tmp_path_factory) -> Path:
    """The run folder of the same round without a host, from the very LoRA that the host's Load Toybox trained."""
    start = hosted / "output" / "dreambooth_dpo" / "toybox" / "concept_0_20_steps.safetensors"
    groups = {
        "sampling": {"steps": STEPS, "candidates_per_prompt": 4},
        "train": {"steps": TRAINING},
        "evaluation": {"seeds_per_prompt": 1},
    }
    update = {name: getattr(TOY_SETTINGS, name).model_copy(update=values) for name, values in groups.items()}
    settings = TOY_SETTINGS.model_copy(update={"rounds": 1, "stop": StopSettings(rule="last"), **update})
    assert (settings.train.learning_rate, settings.train.schedule) == (RATE, "linear")
    loop = toy_loop(concept_from_seed(0), tmp_path_factory.mktemp("headless") / "run", (start, {"curve": []}), settings, resume=False)
    finish(loop, loop.go(), "lora")
    loop.run.close()
    return loop.run.path


def scorer_of(run: RunFolder, axis: str) -> str:
    """The name under which a node keeps an axis's scores: its own, and the scorer's fingerprint."""
    return run._db.execute("SELECT DISTINCT scorer FROM scores WHERE scorer LIKE ?", (f"{axis}_%",)).fetchone()[0]


def test_candidates_pairs_and_lora_are_the_same(hosted: Path, headless: Path):
    """Latents to 2e-4 of values up to about 5 (the start is merged by two programs); scores to 5e-3 (grey values round); pairs equal;
    the LoRA to 1 % of its change."""
    folder = hosted / "output" / "dreambooth_dpo" / "same"
    name = next(p.name for p in folder.iterdir() if p.name.startswith("candidates_"))
    with RunFolder(folder) as there, RunFolder(headless) as here:
        ours, theirs = here.candidates("round_0"), there.candidates(name)
        assert [(c.prompt, c.seed) for c in ours] == [(c.prompt, c.seed) for c in theirs] and len(ours) == 120
        apart = (here.latents("round_0") - there.latents(name)).abs().max()
        assert apart < 2e-4, apart
        for axis in ("fidelity", "alignment"):
            scored = there.score_array(name, scorer_of(there, axis))
            np.testing.assert_allclose(here.score_array("round_0", axis), scored, atol=5e-3)
            assert scored.std() > 0.02
        pairs_name = next(iter(there.facts(f"yield_{name}_pairs_"))).removeprefix("yield_")
        ours, theirs = here.pairs("round_0"), there.pairs(pairs_name)
        assert [(p.winner, p.loser) for p in ours] == [(p.winner, p.loser) for p in theirs] and len(ours) > 20
        np.testing.assert_allclose([p.length for p in ours], [p.length for p in theirs], atol=1e-3)
    ours = load_file(headless / "lora.safetensors")
    theirs = load_file(hosted / "models" / "loras" / "dreambooth_dpo" / "quick_00001.safetensors")
    assert ours.keys() == theirs.keys()
    ups = [k for k in ours if ".lora_up" in k]
    change = torch.cat([ours[k].flatten() for k in ups])
    gap = torch.cat([(ours[k] - theirs[k]).flatten() for k in ups])
    assert change.norm() > 1e-2 and gap.norm() < 0.01 * change.norm(), (gap.norm(), change.norm())
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-3) for k in ours if ".lora_down" in k)
