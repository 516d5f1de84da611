"""Tests the report on small synthetic runs whose gains are planted."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.json_values import to_json
from dreambooth_dpo.dpo_core.pairs.rules import angle_window_pairs
from dreambooth_dpo.dpo_core.records import Candidate
from dreambooth_dpo.dpo_core.report.page import build_report, write_report
from dreambooth_dpo.dpo_core.report.words import answer, change_word
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import LoopSettings

EVIL = 'a photo of a sks robot <script>alert(1)</script> & "friends"'
PROMPTS = [
    EVIL,
    *(f"a photo of a sks robot on {c}" for c in ("grass", "snow", "sand", "brick", "water", "wood", "checker")),
]
SCORERS = {
    "fidelity": {"role": "reward", "title": "Fidelity", "higher_is_better": True},
    "alignment": {"role": "reward", "title": "Alignment", "higher_is_better": True},
    "judge_fidelity": {"role": "judge", "title": "Fidelity (judge)", "higher_is_better": True},
    "judge_alignment": {"role": "judge", "title": "Alignment (judge)", "higher_is_better": True},
    "copy_paste": {"role": "guard", "title": "Copy-paste", "higher_is_better": False},
    "oracle_all_right": {"role": "oracle", "title": "All right", "higher_is_better": True},
}
UP = dict(zip(SCORERS, (0.06, 0.04, 0.05, 0.03, 0.0, 0.1), strict=True))
SETTINGS = LoopSettings(rounds=2)
SEEDS = 2


def add_set(run: RunFolder, name: str, per_prompt: int) -> list[Candidate]:
    """Images of random blocks: 8 prompts, `per_prompt` seeds each."""
    rng = np.random.default_rng(len(name) + ord(name[-1]))
    found = [
        Candidate(i, i // per_prompt, PROMPTS[i // per_prompt], 1000 + i, 0, i)
        for i in range(len(PROMPTS) * per_prompt)
    ]
    blocks = rng.integers(0, 256, (len(found), 4, 4, 3), dtype=np.uint8)
    run.add_chunk(name, found, torch.zeros(len(found), 1, 2, 2), blocks.repeat(16, 1).repeat(16, 2))
    return found


def add_evaluation(run: RunFolder, index: int, gains: dict[str, float]) -> None:
    """Scores .4 + .01 * prompt + index/2 * gain * w, where w is 0.5 for even prompts and 1.5 for odd ones (mean 1)."""
    found = add_set(run, f"evaluation_{index}", SEEDS)
    prompt = np.asarray([c.prompt_index for c in found])
    for name, gain in gains.items():
        values = 0.4 + 0.01 * prompt + index / 2 * gain * np.where(prompt % 2, 1.5, 0.5)
        if gain == 0 and index:
            values = values + np.where(prompt % 2, 0.01, -0.01)
        run.add_scores(f"evaluation_{index}", name, "f", [c.position for c in found], values)


def add_round(run: RunFolder, index: int) -> None:
    found = add_set(run, f"round_{index}", 4)
    rng = np.random.default_rng(index)
    f, a = rng.normal(0.5, 0.1, len(found)), rng.normal(0.5, 0.1, len(found))
    for name, values in (("fidelity", f), ("alignment", a)):
        run.add_scores(f"round_{index}", name, "f", range(len(found)), values)
    pairs, found_yield = angle_window_pairs(np.asarray([c.prompt_index for c in found]), f, a, SETTINGS.pairs)
    run.set_pairs(f"round_{index}", pairs)
    run.set_fact(f"yield_round_{index}", to_json(found_yield))
    steps = np.arange(30)
    run.add_training(
        index,
        [
            {
                "step": int(s), "loss": 0.69 - 0.004 * s + rng.normal(0, 0.02),
                "winner_error": 0.0001 * s * (1 + index * 4),
                "loser_error": 0.0003 * s, "margin": 0.0002 * s, "accuracy": float(0.5 + 0.015 * s), "grad_norm": 1.0,
                "learning_rate": 1e-4, "winner_alarm": 0.0001 * max(0, s - 10) * (1 + index * 6),
            }
            for s in steps
        ],
    )  # fmt: skip


def make_run(path, gains: dict[str, float] = UP, evaluations: int = 3, rounds: int = 2) -> RunFolder:
    run = RunFolder(path / "run")
    run.set_fact("settings", SETTINGS.model_dump(mode="json"))
    run.set_fact("concept", {"identifier": "sks", "class_noun": "robot", "name": "cyan robot, pink belly", "seed": 3})
    run.set_fact("scorers", {n: SCORERS[n] for n in gains})
    run.set_fact("unseen", PROMPTS[-2:])
    run.set_fact(
        "start", {"step": 240, "extended": False, "under_fitted": False, "sentence": "Personalized in 240 steps."}
    )
    curve = [
        {"step": s, "fidelity": 0.2 + 0.05 * i, "alignment": 0.55 - 0.03 * i} for i, s in enumerate((0, 60, 120, 240))
    ]
    run.set_fact("dreambooth_curve", curve)
    (run.path / "references").mkdir()
    Image.fromarray(np.full((64, 64, 3), 120, np.uint8)).save(run.path / "references" / "00.png")
    for k in range(evaluations):
        add_evaluation(run, k, gains)
    for r in range(rounds):
        add_round(run, r)
    if rounds:
        run.set_fact("rounds", rounds)
    return run


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("planted"))
    return run, write_report(run)


def test_numbers_are_the_planted_ones(planted):
    """Fidelity of prompt p is .4 + .01 p before (mean .435).

    Even prompts gain .03, odd ones .09: mean gain .06, after .495.
    """
    run, report = planted
    fidelity = report["fidelity"]
    assert fidelity["before"] == pytest.approx(0.435)
    assert fidelity["after"] == pytest.approx(0.495)
    assert fidelity["gain"] == pytest.approx(0.06)
    assert 0.03 <= fidelity["ci95"][0] < 0.06 < fidelity["ci95"][1] <= 0.09
    assert (fidelity["images"], fidelity["prompts"], fidelity["verdict"]) == (16, 8, "up")
    assert report["concept"] == 3 and report["rounds"] == 2
    assert [p["round"] for p in report["per_round"]] == [0, 1, 2]
    assert report["per_round"][1]["fidelity"] == pytest.approx(0.465)
    assert report["unseen"]["fidelity"]["prompts"] == 2
    assert len(report["pairs"]) == 2 and report["pairs"][0]["kept"] == len(run.pairs("round_0"))
    # 8 prompts of 4 pairs at most are 32 pairs, fewer than the 48 wanted.
    assert all("raise max_pairs_per_prompt to 6" in found["advice"] for found in report["pairs"])
    assert any(s.startswith("There were few pairs in round 1, 2. Round 1: Few pairs: ") for s in report["distrust"])
    assert report["training"]["max_winner_alarm"] == pytest.approx([0.0019, 0.0133])
    assert len(report["training"]["warnings"]) == 1 and "round 2" in report["training"]["warnings"][0]
    assert set(SCORERS) <= set(report)


def test_report_files_match_the_returned_report(planted):
    run, report = planted
    folder = run.path / "report"
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == report
    names = {p.stem for p in folder.glob("*.png")}
    assert names == {"references", "grid", "path", "cloud_0", "cloud_1", "pairs_0", "pairs_1", "training"}
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert image.width >= 64
            assert path.stem == "references" or np.asarray(image).std() > 0, f"{path.name} is blank"


def test_page_is_self_contained_and_escaped(planted):
    run, report = planted
    page = (run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert (
        not re.search(r"(src|href)\s*=\s*[\"']?\s*(https?:|//)", page) and "@import" not in page and "url(" not in page
    )
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 8
    assert report["headline"] in page
    assert page.index(report["headline"]) < page.index("Every score, before and after")


def test_concept_name_is_escaped(tmp_path):
    run = make_run(tmp_path, evaluations=1, rounds=0)
    run.set_fact("concept", {"identifier": "sks", "class_noun": "robot", "name": "<script>alert(1)</script>"})
    assert write_report(run)["concept"] == "<script>alert(1)</script>"
    page = (run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page and "<script" not in page


def test_answer_better_names_both_axes_and_the_truth(planted):
    _, report = planted
    assert report["status"] == "better"
    assert report["answer"].startswith("It got better: fidelity and alignment rose")
    assert "truth rose, too" in report["answer"]
    assert "8 held-out prompts (16 pictures" in report["answer"]
    assert any("contexts that no training prompt names" in s for s in report["distrust"])
    assert any("training seed" in s for s in report["distrust"])
    assert any("Only 8 held-out prompts" in s for s in report["distrust"])


def verdicts(**words: str) -> dict:
    """Numbers with these verdicts, and placeholder values otherwise."""
    shape = {"up": (0.1, [0.05, 0.15]), "down": (-0.1, [-0.15, -0.05]), "unclear": (0.0, [-0.05, 0.05])}
    numbers = {
        n: {"before": 0.5, "after": 0.5 + gain, "gain": gain, "ci95": ci95, "images": 120, "prompts": 20, "verdict": w}
        for n, w in words.items()
        for gain, ci95 in (shape[w],)
    }
    return {**numbers, "training": {"steps": []}}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            {"fidelity": "up", "alignment": "unclear"},
            "better",
            "fidelity rose, alignment held, but no judge checked it.",
        ),
        ({"fidelity": "unclear", "alignment": "unclear"}, "none", "No gain shown"),
        ({"fidelity": "up", "alignment": "down"}, "mixed", "no gain shown: fidelity rose and alignment fell"),
        ({"fidelity": "down", "alignment": "unclear"}, "worse", "It got worse: fidelity fell."),
        ({"fidelity": "up", "alignment": "up", "oracle_all_right": "down"}, "hacked", "the truth fell: looks hacked"),
        ({"fidelity": "up", "alignment": "up", "judge_fidelity": "down"}, "hacked", "the judge fell: looks hacked"),
        (
            {"fidelity": "up", "alignment": "up", "oracle_all_right": "unclear"},
            "better",
            "the truth shows no clear gain",
        ),
        (
            {"fidelity": "up", "alignment": "up", "judge_fidelity": "down", "oracle_all_right": "up"},
            "better",
            "It got better",
        ),
    ],
)
def test_answer_status_and_headline(words, status, said):
    found = answer(verdicts(**words), SCORERS)
    assert found.status == status
    assert said in found.headline


def test_hacked_run_is_reported_as_hacked(tmp_path):
    report = build_report(make_run(tmp_path, {**UP, "oracle_all_right": -0.1, "copy_paste": 0.05}))
    assert report["status"] == "hacked" and "looks hacked" in report["answer"]
    assert report["oracle_all_right"]["verdict"] == "down"
    assert any(s.startswith("A guard got worse: Copy-paste") for s in report["distrust"])


def test_no_gain_is_reported_as_no_gain(tmp_path):
    report = build_report(make_run(tmp_path, dict.fromkeys(UP, 0.0)))
    assert report["status"] == "none" and report["answer"].startswith("No gain shown")


def test_change_word_respects_the_direction_that_is_better():
    assert change_word("up", False) == "worse"
    assert change_word("down", False) == "better"
    assert change_word("unclear", False) == "no clear change"
    assert change_word("up", None) == "changed"


def test_missing_start_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(UserError, match=r"evaluation_0.*dreambooth-dpo run"):
        write_report(RunFolder(tmp_path / "empty"))


def test_partly_scored_start_is_refused(tmp_path):
    run = RunFolder(tmp_path / "run")
    add_set(run, "evaluation_0", SEEDS)
    run.add_scores("evaluation_0", "fidelity", "f", range(16), np.zeros(16))
    with pytest.raises(UserError, match="alignment scores of evaluation_0"):
        build_report(run)


def test_run_with_only_a_start_is_reported_as_untrained(tmp_path):
    run = make_run(tmp_path, evaluations=1, rounds=0)
    report = write_report(run)
    assert report["headline"] in (run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert report["status"] == "untrained" and report["answer"].startswith("Nothing was trained")
    assert report["fidelity"] == {"before": pytest.approx(0.435), "images": 16, "prompts": 8, "verdict": "not trained"}


def test_missing_middle_and_unfinished_evaluations(tmp_path):
    """Round 1 was not evaluated; evaluation_2 lacks the scores of two images, so at first only the start counts."""
    run = make_run(tmp_path, evaluations=1, rounds=0)
    found = add_set(run, "evaluation_2", SEEDS)
    for name in UP:
        run.add_scores("evaluation_2", name, "f", [c.position for c in found[:-2]], np.full(14, 0.9))
    report = build_report(run)
    assert report["status"] == "untrained" and "gain" not in report["fidelity"]
    assert any("after round 2" in s for s in report["distrust"])
    for name in UP:
        run.add_scores("evaluation_2", name, "f", [c.position for c in found], np.full(16, 0.9))
    report = build_report(run)
    assert report["evaluated_rounds"] == [0, 2]
    assert report["fidelity"]["gain"] == pytest.approx(0.9 - 0.435)


def test_images_are_paired_by_prompt_and_seed(tmp_path):
    """Positions may differ between sets without changing the gain."""
    run = make_run(tmp_path, evaluations=2, rounds=0)
    found = run.candidates("evaluation_0")
    moved = [Candidate(15 - c.position, c.prompt_index, c.prompt, c.seed, 0, c.row) for c in found]
    run.add_chunk("evaluation_1", moved, torch.zeros(16, 1, 2, 2), np.zeros((16, 64, 64, 3), np.uint8))
    old = run.score_array("evaluation_0", "fidelity")
    for name in UP:
        run.add_scores("evaluation_1", name, "f", [c.position for c in moved], old + 0.05)
    assert build_report(run)["fidelity"]["gain"] == pytest.approx(0.05)
    assert build_report(run)["fidelity"]["ci95"] == pytest.approx([0.05, 0.05])


def test_one_prompt_gives_no_interval(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.set_fact("rounds", 1)
    for k in (0, 1):
        picture = np.full((1, 64, 64, 3), 9, np.uint8)
        run.add_chunk(f"evaluation_{k}", [Candidate(0, 0, "a sks robot", 1, 0, 0)], torch.zeros(1, 1, 2, 2), picture)
        for name in ("fidelity", "alignment"):
            run.add_scores(f"evaluation_{k}", name, "f", [0], np.asarray([0.1 * k]))
    report = write_report(run)
    assert report["fidelity"]["ci95"] == [None, None] and report["fidelity"]["verdict"] == "unclear"
    assert "single prompt" in report["answer"]
    assert any("No judge" in s for s in report["distrust"])


def test_missing_image_is_named(tmp_path):
    run = make_run(tmp_path, evaluations=2, rounds=0)
    run.image_path("evaluation_1", 0).unlink()
    with pytest.raises(UserError, match=r"evaluation_1.*Put it back"):
        write_report(run)


def test_report_is_written_to_the_given_folder(tmp_path):
    run = make_run(tmp_path, evaluations=1, rounds=0)
    write_report(run, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "report.html").is_file() and not (run.path / "report").exists()
