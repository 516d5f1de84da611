"""Two rounds headless and in ComfyUI from one start: equal candidates, pairs and LoRAs in every round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hosting import Server, comfyui_path
from safetensors.torch import load_file
from toy_graphs import SOME_PROMPTS, node, rounds_in_one

from dreambooth_dpo.dpo_core.loop.facts import finish
from dreambooth_dpo.dpo_core.prompts import PromptSet, fill
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import StopSettings
from dreambooth_dpo.toybox.concepts import concept_from_seed
from dreambooth_dpo.toybox.defaults import TOY_SETTINGS
from dreambooth_dpo.toybox.run import toy_loop

pytestmark = pytest.mark.usefixtures("comfyui")
# Where 999 / steps is whole, ComfyUI's sgm_uniform and diffusers' linspace are the same times.
STEPS, TRAINING, ROUNDS = 9, 6, 2
RATE, GUARD, DIVERSITY, CANDIDATES, EARLIER = 2e-4, 0.6, 0.5, 6, 1


@pytest.fixture(scope="module")
def hosted(tmp_path_factory) -> Path:
    """The output folder of a ComfyUI server that ran the rounds."""
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    graph = rounds_in_one(ROUNDS)
    graph["rounds"]["inputs"] |= {
        "steps": STEPS, "candidates_per_prompt": CANDIDATES,
        "scheduler": "sgm_uniform", "rule": TOY_SETTINGS.pairs.rule, "train_steps": TRAINING,
        "pairs_per_step": 8,
        "learning_rate": RATE, "schedule": "linear", "loser_guard": GUARD, "diversity": DIVERSITY,
        "earlier_rounds": EARLIER,
    }  # fmt: skip
    graph["save"] = node("SaveLora", lora=["rounds", 1], filename_prefix="same")
    with Server(tmp_path_factory.mktemp("hosted")) as server:
        server.run(graph)
        return server.folder


@pytest.fixture(scope="module")
def headless(hosted: Path, tmp_path_factory) -> Path:
    """The run folder of the same rounds without ComfyUI, from the LoRA that Load Toybox trained."""
    start = hosted / "output" / "dreambooth_dpo" / "toybox" / "concept_0_20_steps.safetensors"
    groups = {
        "sampling": {
            "steps": STEPS,
            "candidates_per_prompt": CANDIDATES,
            "candidate_steps": 0,
            "earlier_rounds": EARLIER,
        },
        "pairs": {"diversity": DIVERSITY},
        "train": {"steps": TRAINING, "learning_rate": RATE, "loser_guard": GUARD},
        "evaluation": {"seeds_per_prompt": 1, "every_round": False},
    }
    update = {name: getattr(TOY_SETTINGS, name).model_copy(update=values) for name, values in groups.items()}
    settings = TOY_SETTINGS.model_copy(
        update={"rounds": ROUNDS, "stop": StopSettings(rule="last"), "sweep": False, **update}
    )
    assert (settings.train.learning_rate, settings.train.schedule) == (RATE, "linear")
    loop = toy_loop(
        concept_from_seed(0),
        tmp_path_factory.mktemp("headless") / "run",
        (start, {"curve": []}),
        settings,
        resume=False,
        prompts=_prompts(),
    )
    finish(loop, loop.go(), "lora")
    loop.run.close()
    return loop.run.path


def _prompts() -> PromptSet:
    """The prompts of the graph, as Prompt Set reads them."""
    concept = concept_from_seed(0).to_concept()
    train, held_out = (tuple(fill(t, concept) for t in text.split("\n")) for text in SOME_PROMPTS.values())
    return PromptSet(train, held_out)


def scorer_of(run: RunFolder, axis: str) -> str:
    """The stored name of an axis's scores: the scorer's name and fingerprint."""
    return run._db.execute("SELECT DISTINCT scorer FROM scores WHERE scorer LIKE ?", (f"{axis}_%",)).fetchone()[0]


@pytest.mark.parametrize("number", range(ROUNDS))
def test_candidates_scores_and_pairs_of_a_round_are_the_same(hosted: Path, headless: Path, number: int):
    """Equal pairs in every round; latents to 2e-4 of values up to about 5 (the start is merged by two programs) and
    scores to 1e-3 (pixels are rounded to 8 bits)."""
    folder = hosted / "output" / "dreambooth_dpo" / "rounds"
    with RunFolder(folder) as there, RunFolder(headless) as here:
        ours = here.candidates(f"round_{number}")
        drawn = {p.name: there.candidates(p.name) for p in folder.iterdir() if p.name.startswith("candidates_")}
        assert len(drawn) == ROUNDS
        (name,) = (
            n for n, found in drawn.items() if [(c.prompt, c.seed) for c in found] == [(c.prompt, c.seed) for c in ours]
        )
        assert len(ours) == 10 * CANDIDATES * (1 + number)
        apart = (here.latents(f"round_{number}") - there.latents(name)).abs()
        assert apart.max() < 2e-4, (apart.max(), apart.mean())
        for axis in ("fidelity", "alignment"):
            scored = there.score_array(name, scorer_of(there, axis))
            np.testing.assert_allclose(here.score_array(f"round_{number}", axis), scored, atol=1e-3)
            assert scored.std() > 0.02
        pairs_name = next(iter(there.facts(f"yield_{name}_pairs_"))).removeprefix("yield_")
        ours, theirs = here.pairs(f"round_{number}"), there.pairs(pairs_name)
        assert len(ours) > 8 and {(p.winner, p.loser) for p in ours} == {(p.winner, p.loser) for p in theirs}
        np.testing.assert_allclose([p.length for p in ours], [p.length for p in theirs], atol=1e-2)


def test_the_lora_is_the_same(hosted: Path, headless: Path):
    """After two rounds, to 0.1 % of its change."""
    ours = load_file(headless / "lora.safetensors")
    theirs = load_file(hosted / "models" / "loras" / "same_00001.safetensors")
    assert ours.keys() == theirs.keys()
    ups = [k for k in ours if ".lora_up" in k]
    change = torch.cat([ours[k].flatten() for k in ups])
    gap = torch.cat([(ours[k] - theirs[k]).flatten() for k in ups])
    assert change.norm() > 1e-2 and gap.norm() < 1e-3 * change.norm(), gap.norm() / change.norm()
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-3) for k in ours if ".lora_down" in k)
