"""`run --dry-run`, `config --short`, and what `personalize` says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from projects import make_project, write_config
from typer.testing import CliRunner

from dreambooth_dpo.cli import app
from dreambooth_dpo.dpo_core.config import EXAMPLE, RunConfig, read_config
from dreambooth_dpo.dpo_core.settings import EvaluationSettings, LoopSettings, SamplingSettings, TrainSettings
from dreambooth_dpo.terminal.dry_run import Counted, Timed, count, gigabytes, seconds


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


def settings(**changes: object) -> LoopSettings:
    sampling = SamplingSettings(candidates_per_prompt=4, steps=10, guidance=4.0, width=64, height=64)
    train = TrainSettings(steps=20, batch_size=2, accumulation=1)
    evaluation = EvaluationSettings(seeds_per_prompt=2)
    return LoopSettings(rounds=3, sampling=sampling, train=train, evaluation=evaluation).model_copy(update=changes)


def test_the_pictures_of_a_run() -> None:
    """3 rounds of 5 prompts with 4 candidates: 60. Held out: 4 evaluations of 2 prompts with 2 seeds: 16."""
    assert count(settings(), 5, 2) == Counted(60, 0, 16)
    drafted = settings(sampling=settings().sampling.model_copy(update={"draft_steps": 3}))
    assert count(drafted, 5, 2) == Counted(60, 60, 16)
    sampled = settings().model_copy(update={"train": settings().train.model_copy(update={"sample_every": 4})})
    given = sampled.rounds * (sampled.train.steps // 4) * 2 * min(2, sampled.evaluation.seeds_per_prompt)
    assert count(sampled, 5, 2) == Counted(60, 0, 16, given) and given > 0
    ends = settings(evaluation=EvaluationSettings(seeds_per_prompt=2, every_round=False))
    assert count(ends, 5, 2).held_out == 8
    # Seven strengths, of which 0 and 1 are drawn already: 5 more sets of 4.
    assert count(settings(sweep=True), 5, 2).held_out == 16 + 20


def test_the_time_of_a_run() -> None:
    """A guided step of 0.2 s has two forwards of 0.1 s; a picture takes 0.5 + 10 * 0.2 = 2.5 s, 76 of them 190 s.

    Training: 3 rounds * 20 steps * 2 pairs * 2 pictures * 4 forwards of 0.1 s = 96 s.
    """
    assert seconds(Counted(60, 0, 16), settings(), Timed(0.5, 0.2)) == pytest.approx(190 + 96)


def test_the_disk_of_a_run() -> None:
    """76 pictures of 0.6 * 64 * 64 * 3 + 4 * 256 bytes, and (4 + 3) * 4 bytes for each of 1000 values."""
    assert gigabytes(Counted(60, 0, 16), settings(), 256, 1000) == pytest.approx(
        (76 * (0.6 * 12288 + 1024) + 28_000) / 1e9
    )


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
