"""Load Scorer's files: replaced on disk, of another kind, refused once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreambooth_dpo.toybox.models import weights_folder


@pytest.fixture
def folder(nodes, tmp_path: Path, monkeypatch) -> Path:
    """The only folder of scorers, with the toybox's judge in it as "mine"."""
    import sys

    module = next(m for name, m in sys.modules.items() if name.endswith("main.nodes.host.scorer_files") or (
        name.endswith(".nodes.host.scorer_files") and not name.startswith("dreambooth_dpo")))  # fmt: skip
    monkeypatch.setattr(module, "roots", lambda: [tmp_path])
    shutil.copytree(weights_folder("judge"), tmp_path / "mine")
    return tmp_path


def load(nodes, **values):
    return nodes["DBDPO_LoadScorer"].execute(**{"architecture": "", "augment": False} | values).result[0]


def refusal(nodes, **values) -> str:
    with pytest.raises(Exception) as raised:
        load(nodes, **values)
    assert type(raised.value).__name__ == "UserError"
    return str(raised.value)


def test_a_replaced_file_is_loaded_again(nodes, folder: Path):
    node, weights = nodes["DBDPO_LoadScorer"], folder / "mine" / "open_clip_model.safetensors"
    before, key = load(nodes, scorer="mine"), node.fingerprint_inputs(scorer="mine", architecture="")
    assert load(nodes, scorer="mine") is before and node.fingerprint_inputs(scorer="mine") == key
    tensors = load_file(weights)
    tensors["logit_scale"] = tensors["logit_scale"] + 1
    size, time = weights.stat().st_size, weights.stat().st_mtime_ns
    save_file(tensors, weights)
    os.utime(weights, ns=(time + 1, time + 1))  # of equal size, a nanosecond younger
    assert weights.stat().st_size == size
    assert node.fingerprint_inputs(scorer="mine") != key
    assert load(nodes, scorer="mine").fingerprint != before.fingerprint


def test_a_folder_has_its_own_architecture(nodes, folder: Path):
    """That of a file chosen before stays in the widget, which is hidden for a folder."""
    plain, other = load(nodes, scorer="mine"), load(nodes, scorer="mine", architecture="ViT-B-32-quickgelu")
    assert other.fingerprint == plain.fingerprint


def test_a_lora_or_checkpoint_is_named_as_what_it_is(nodes, folder: Path):
    save_file({"lora_unet_x_to_q.lora_down.weight": torch.zeros(2, 2)}, folder / "lora.safetensors")
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2)}, folder / "sd.safetensors")
    node = nodes["DBDPO_LoadScorer"]
    said = node.validate_inputs(scorer="lora.safetensors")
    assert said.startswith("scorer 'lora.safetensors' is a LoRA, which cannot score pictures. Choose an open_clip")
    assert refusal(nodes, scorer="lora.safetensors", architecture="ViT-B-32") == said
    assert "is a whole checkpoint" in node.validate_inputs(scorer="sd.safetensors")


def test_refusals_hold_no_hint_at_the_hub_and_no_list_of_tensors(nodes, folder: Path):
    (folder / "mine" / "open_clip_model.safetensors").rename(folder / "alone.safetensors")
    assert "hf-hub" not in (said := refusal(nodes, scorer="mine")) and "lacks open_clip_model.safetensors" in said
    assert "write open_clip's name for it into architecture" in refusal(nodes, scorer="alone.safetensors")
    said = refusal(nodes, scorer="alone.safetensors", architecture="ViT-B-32")
    assert "Is alone.safetensors of architecture ViT-B-32?" in said and len(said) < 500 and "\n" not in said
    assert "hf-hub" not in refusal(nodes, scorer="alone.safetensors", architecture="roberta-ViT-B-32")


def test_a_refusal_at_the_door_is_printed_once(nodes):
    """ComfyUI repeats a message for every input that validate_inputs names."""
    from inspect import getfullargspec

    assert getfullargspec(nodes["DBDPO_LoadScorer"].validate_inputs).args == ["cls", "scorer"]
    assert nodes["DBDPO_LoadScorer"].validate_inputs(scorer="gone").startswith("scorer 'gone' was not found.")


def test_fidelity_by_patches_is_that_of_the_headless_way(nodes, folder: Path):
    """The same scores and fingerprint; a ResNet has no patches and is refused when it is loaded."""
    import sys

    import numpy as np

    from dreambooth_dpo.metrics.embedders import load_embedder
    from dreambooth_dpo.metrics.patches import PatchFidelityScorer
    from dreambooth_dpo.toybox.concepts import concept_from_seed

    toy = concept_from_seed(0)
    loaded = load(nodes, scorer="toybox reward", fidelity="patches")
    module = sys.modules[type(loaded).__module__]
    hosted = module.fidelity_scorer(loaded, toy.references, "fidelity", None)
    ours = PatchFidelityScorer(load_embedder(weights_folder("reward")), toy.references)
    assert hosted.fingerprint == ours.fingerprint
    np.testing.assert_allclose(hosted.score(toy.held_out, [""] * 5), ours.score(toy.held_out, [""] * 5), atol=1e-5)
    whole = load(nodes, scorer="toybox reward")
    assert module.fidelity_scorer(whole, toy.references, "fidelity", None).fingerprint != ours.fingerprint
    assert "has no patches" in refusal(nodes, scorer="mine", fidelity="patches")
