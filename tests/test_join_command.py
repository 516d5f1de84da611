"""The command `join`: takes both LoRAs from the config, never overwrites, and says what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import Result
from projects import make_project, write_config
from typer.testing import CliRunner

from dreambooth_dpo.cli import app
from dreambooth_dpo.dpo_core.backends.diffusers.model import load_pipeline
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import read_lora, read_metadata, save_lora


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def write_lora(project: Path, path: Path, rank: int, seed: int, targets: str = "attention", rounds: int = 1) -> Path:
    adapter = Adapter(load_pipeline(project / "modèle").unet, AdapterSettings(rank=rank, alpha=1.0, targets=targets))
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=draws))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_lora(adapter, path, {"dreambooth_dpo.rounds": str(rounds)})
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with the user's LoRA (rank 3, all layers) and a run's (rank 2, attention)."""
    folder = tmp_path_factory.mktemp("join") / "projekt é"
    make_project(folder)
    write_lora(folder, folder / "mein hund.safetensors", 3, 0, "all")
    write_lora(folder, folder / "läufe" / "erster" / "dreambooth_dpo_lora.safetensors", 2, 1)
    return folder


def test_join_replaces_both(project):
    config = write_config(project, "a.yaml", model__lora="mein hund.safetensors", model__lora_strength=0.5)
    result = call("join", config)
    out = project / "läufe" / "erster" / "dreambooth_dpo_lora_joined.safetensors"
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert str(out) in said and "rank 5, float32" in said and "mein hund.safetensors (strength 0.5" in said
    assert float(said.split("read again: ")[1].split()[0]) < 1e-6
    assert all(len(v) == 5 for k, v in read_lora(out).items() if k.endswith("lora_down.weight"))
    assert [entry["strength"] for entry in json.loads(read_metadata(out)["dreambooth_dpo.joined"])] == [0.5, 1.0]

    before, again = out.read_bytes(), call("join", config)
    assert again.exit_code == 2 and "exists and is not overwritten. Give another file as --out" in again.stderr
    assert out.read_bytes() == before

    one = load_pipeline(project / "modèle", lora=out, lora_strength=1.0).unet.state_dict()
    both = load_pipeline(project / "modèle", lora=project / "mein hund.safetensors", lora_strength=0.5)
    from dreambooth_dpo.dpo_core.backends.diffusers.loras import merge_lora

    merge_lora(both, project / "läufe" / "erster" / "dreambooth_dpo_lora.safetensors", 1.0)
    for key, value in both.unet.state_dict().items():
        torch.testing.assert_close(one[key], value, rtol=0, atol=1e-6)


def test_join_with_options(project, tmp_path):
    config = write_config(project, "b.yaml", model__lora="mein hund.safetensors")
    other = write_lora(project, tmp_path / "other.safetensors", 4, 2, rounds=0)
    out = tmp_path / "x.safetensors"
    result = call("join", config, "--lora", other, "--out", out, "--strength", "0.7", "--own-ranks")
    assert result.exit_code == 0, result.output
    assert "ranks 3 to 7" in result.stdout and "The run kept the original" in result.stdout
    assert "(strength 0.7" in result.stdout


def test_join_says_what_is_missing(project, tmp_path):
    plain = call("join", write_config(project, "c.yaml"))
    assert plain.exit_code == 2 and "has no model.lora, so there is nothing to join" in plain.stderr
    config = write_config(project, "d.yaml", model__lora="mein hund.safetensors")
    lost = call("join", config, "--lora", tmp_path / "no.safetensors")
    assert lost.exit_code == 2 and "no.safetensors does not exist" in lost.stderr
    named = call("join", config, "--out", tmp_path / "x.bin")
    assert named.exit_code == 2 and "must end in .safetensors" in named.stderr
