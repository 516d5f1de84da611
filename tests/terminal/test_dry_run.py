"""`run --dry-run`, `config --short`, and what `personalize` says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from projects import make_project, write_config
from typer.testing import CliRunner

from dreambooth_dpo.cli import app
from dreambooth_dpo.dpo_core.config import EXAMPLE, RunConfig, read_config


def call(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dry") / "projekt é"
    make_project(folder)
    return folder


def test_the_short_config_is_what_run_takes(tmp_path: Path) -> None:
    """Ten lines; all else has the default."""
    text = call("config", "--short").output
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    given, defaults = RunConfig.model_validate(yaml.safe_load(text)), RunConfig.model_validate(EXAMPLE)
    assert given == defaults and read_config(path).output == tmp_path / "runs" / "my-dog"
    assert len([line for line in text.splitlines() if line.strip() and not line.startswith("#")]) == 10
    assert call("config", "--short", "--schema").exit_code == 2


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(project: Path) -> None:
    before = sorted(project.rglob("*"))
    result = call("run", write_config(project, "probe.yaml", output="läufe/probe"), "--dry-run")
    assert result.exit_code == 0, result.output
    settings_of = read_config(project / "probe.yaml")
    assert "All is there: model, photos, " in result.output and "scorers (fidelity, alignment, " in result.output
    assert f"Pictures to draw: {settings_of.rounds * 3 * 2} candidates" in result.output, result.output
    assert "Time: about " in result.output and "Disk: about " in result.output
    assert not (project / "läufe" / "probe").exists()
    assert sorted(set(project.rglob("*")) - set(before)) == [project / "probe.yaml"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model__path": "gone"}, "gone"),
        ({"prompts": "gone.txt"}, "gone.txt"),
        ({"concept__references": "gone"}, "gone"),
        ({"scorers__reward": "gone"}, "gone"),
    ],
)
def test_a_dry_run_refuses_what_run_refuses(project: Path, changes: dict, said: str) -> None:
    config = write_config(project, "wrong.yaml", output="läufe/wrong", **changes)
    dry, real = call("run", config, "--dry-run"), call("run", config)
    assert (dry.exit_code, real.exit_code) == (2, 2)
    assert dry.stderr == real.stderr and said in dry.stderr
