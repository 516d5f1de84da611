"""Tests a headless run with PickScore as a guard and a vision-language model as the judge, from config to report."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from judge_models import write_towers, write_vlm
from projects import config_of, make_project

from dreambooth_dpo.dpo_core.config import ScorerConfig
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.headless import config_concept, loop_from_config, run_loop
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.from_folders import clip_scorers
from dreambooth_dpo.metrics.scorers import QualityScorer
from dreambooth_dpo.toybox.models import weights_folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("richter") / "prøjekt"
    make_project(folder)
    write_towers(folder / "pick", "clip")
    write_towers(folder / "siglip", "siglip", seed=3)
    write_vlm(folder / "vlm")
    return folder


def test_a_run_reports_quality_and_the_judge_by_questions(project: Path) -> None:
    scorers = {"quality": {"folder": "pick"}, "vlm": {"folder": "vlm", "batch_size": 3}, "judge": "siglip"}
    reward = str(weights_folder("reward"))
    config = config_of(project, scorers={"reward": reward, "judge_kind": "transformers", **scorers})
    loop = loop_from_config(config, resume=False)
    names = ["judge_alignment", "judge_fidelity", "copy_paste", "diversity", "saturation", "quality"]
    assert [s.name for s in loop.judges] == names and len(loop.rewards) == 2
    _, report = run_loop(loop)
    about = loop.run.fact("scorers")
    assert about["quality"] == {"role": "guard", "title": "Quality (by people's preferences)", "higher_is_better": True}
    assert about["judge_alignment"]["title"] == "Alignment (judge: qwen2_5_vl vlm)"
    for name in ("quality", "judge_alignment"):
        assert {"before", "after", "gain", "ci95", "verdict"} <= report[name].keys(), name
        assert report[name]["images"] == report["fidelity"]["images"]
    assert ((answers := loop.run.score_array("evaluation_0", "judge_alignment")) > 0).all() and answers.max() < 1
    pictures = loop.run.images("evaluation_0")
    prompts = [c.prompt for c in loop.run.candidates("evaluation_0")]
    pick = next(s for s in loop.judges if s.name == "quality")
    assert isinstance(pick, QualityScorer)
    np.testing.assert_allclose(loop.run.score_array("evaluation_0", "quality"), pick.score(pictures, prompts))
    assert "Quality (by people" in (loop.run.path / "report" / "report.html").read_text(encoding="utf-8")


def test_both_become_rewards_on_request_and_the_other_judge_keeps_fidelity(project: Path) -> None:
    config = config_of(project)
    concept, reward = config_concept(config), weights_folder("reward")
    given = {"folder": project / "vlm", "unit": "log_odds"}
    trained = ScorerConfig(
        reward=reward,
        quality={"folder": project / "pick", "role": "reward"},
        vlm={**given, "role": "reward"},
        faces=None,
    )
    found = clip_scorers(reward, trained, concept)
    assert [s.name for s in found.rewards] == ["fidelity", "alignment", "alignment_2", "alignment_3"]
    assert [s.name for s in found.judges] == ["copy_paste", "diversity", "saturation"]
    judged = clip_scorers(reward, ScorerConfig(reward=reward, judge=weights_folder("judge"), vlm=given), concept)
    assert sum(s.name == "judge_alignment" for s in judged.judges) == 1
    assert judged.doubts[-1] == "qwen2_5_vl vlm judges alignment in place of scorers.judge, which judges fidelity."


def test_siglip_scores_as_the_first_reward(project: Path) -> None:
    concept = config_concept(config_of(project))
    found = clip_scorers(project / "siglip", None, concept)
    assert [s.name for s in found.rewards] == ["fidelity", "alignment"]


def test_missing_folders_are_refused_before_another_model_is_loaded(project: Path, tmp_path: Path) -> None:
    concept = config_concept(config_of(project))
    nowhere = {"folder": tmp_path / "nirgends"}
    for name, said in (("quality", "hf download google/siglip2"), ("vlm", "hf download Qwen/Qwen3-VL")):
        config = ScorerConfig(reward=tmp_path / "no reward", **{name: nowhere})
        with pytest.raises(MetricsError, match=rf"nirgends does not exist(?s:.*){said}"):
            clip_scorers(config.rewards, config, concept)
    with pytest.raises(UserError, match=r"scorers\.vlm\.folder is 'hf-hub:Qwen/x', but names on the hub are for"):
        config_of(project, scorers__vlm={"folder": "hf-hub:Qwen/x"})


def test_a_run_that_began_before_the_saturation_guard_goes_on_and_gets_it(project: Path) -> None:
    config = config_of(project, output="älter")
    loop = loop_from_config(config, resume=False)
    _, report = run_loop(loop)
    assert report["saturation"]["images"] == report["fidelity"]["images"]
    loop.run.set_fact("scorers", {n: s for n, s in loop.run.fact("scorers").items() if n != "saturation"})
    loop.run.close()
    with sqlite3.connect(config.output / "records.sqlite") as records:
        assert records.execute("DELETE FROM scores WHERE scorer = 'saturation'").rowcount > 0
    assert run_loop(loop_from_config(config, resume=True))[1] == report
