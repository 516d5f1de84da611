"""Tests the whole method on the shipped toybox models at a small size: personalize, one round, evaluation, report."""

import json

import numpy as np
import pytest
import torch

from dreambooth_dpo.dpo_core.loop.facts import finish
from dreambooth_dpo.dpo_core.report.page import write_report
from dreambooth_dpo.dpo_core.settings import StopSettings
from dreambooth_dpo.dpo_core.training.lora_files import load_into_adapter
from dreambooth_dpo.metrics.questions import questions_of
from dreambooth_dpo.toybox.concepts import concept_from_seed
from dreambooth_dpo.toybox.defaults import TOY_PERSONALIZE, TOY_SETTINGS
from dreambooth_dpo.toybox.models import oracle_scorers
from dreambooth_dpo.toybox.run import start_of, toy_loop, toy_prompts, toy_scorers
from dreambooth_dpo.toybox.stand_in import StandInAnswerer
from dreambooth_dpo.toybox.world import render


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("toy ünder")
    small = TOY_SETTINGS.model_copy(
        update={
            "rounds": 1,
            "sampling": TOY_SETTINGS.sampling.model_copy(update={"candidates_per_prompt": 5, "steps": 4}),
            "train": TOY_SETTINGS.train.model_copy(update={"steps": 4, "batch_size": 4, "checkpoint_every": 2}),
            "evaluation": TOY_SETTINGS.evaluation.model_copy(update={"seeds_per_prompt": 1}),
            "stop": StopSettings(rule="last"),
        }
    )
    brief = TOY_PERSONALIZE.model_copy(update={"steps": 6, "curve": (0, 6, 9), "max_steps": 8})
    toy = concept_from_seed(1)
    start = start_of(toy, folder / "start", brief, small)
    loop = toy_loop(toy, folder / "run", start, small, resume=False, scorers=toy_scorers(toy, questions=True))
    rounds = loop.go()
    return loop, start, finish(loop, rounds, "result"), write_report(loop.run)


def test_report_contains_every_documented_number(finished):
    loop, _, _, report = finished
    kept = json.loads((loop.run.path / "report" / "report.json").read_text(encoding="utf-8"))
    assert kept["concept"] == 1 and kept["rounds"] == 1 and report["answer"]
    for name in ("fidelity", "alignment", "judge_fidelity", "judge_alignment", "oracle_all_right"):
        assert set(kept[name]) >= {"before", "after", "gain", "ci95"}, name
        assert kept[name]["images"] == len(loop.prompts.held_out)
    page = (loop.run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert "<img" in page and "http://" not in page and "https://" not in page


def test_questions_judge_the_alignment_from_picture_to_report(finished):
    """Prompt -> questions -> log-probabilities -> score -> gain, by the stand-in, which says its name."""
    (loop, _, _, report), toy = finished, concept_from_seed(1)
    scores = loop.run.score_array("evaluation_0", "judge_alignment")
    assert ((scores > 0) & (scores < 1)).all() and len(set(scores)) == len(scores)
    candidate, pictures = loop.run.candidates("evaluation_0")[7], loop.run.images("evaluation_0", [7])
    asked = questions_of(candidate.prompt.replace(f"{toy.identifier} ", ""))
    logs = np.concatenate([StandInAnswerer(toy.noun).answers(pictures, question) for question in asked])
    assert scores[7] == pytest.approx((1 / (1 + np.exp(logs[:, 1] - logs[:, 0]))).mean())
    about = loop.run.fact("scorers")["judge_alignment"]
    assert about["role"] == "judge" and "stand-in for a vision-language model" in about["title"]
    assert report["judge_alignment"]["images"] == len(loop.prompts.held_out)


def test_under_fitted_start_is_trained_further(finished):
    """An under-fitted start is trained further, up to max_steps, and its record says so."""
    _, (lora, record), _, _ = finished
    assert lora.is_file() and record["step"] == 8 and record["extended"] and record["under_fitted"]
    assert [p["step"] for p in record["curve"]] == [0, 6, 7, 8, 9]


def test_lora_file_acts_as_the_live_adapter(finished):
    loop, _, lora, _ = finished
    model, adapter = loop.model, loop.adapter
    noisy, times = torch.randn(2, 4, 16, 16), torch.tensor([100, 800])
    cond = model.encode_prompts(list(loop.prompts.train[:2]))
    with torch.no_grad(), adapter.attached():
        live = model.predict(noisy, times, cond)
        for layer in adapter.policy.values():
            layer.up.zero_()
        assert not torch.equal(live, model.predict(noisy, times, cond))
        load_into_adapter(adapter, lora)
        assert torch.equal(live, model.predict(noisy, times, cond))


def test_oracle_scorers_on_a_right_image_and_a_wrong_hat():
    toy = concept_from_seed(2)
    prompts = toy_prompts(toy).train[:8]
    right = np.stack([render(toy.scene_for(p), i) for i, p in enumerate(prompts)])
    bare = np.stack([render(toy.scene_for(p).with_(hat=None), i) for i, p in enumerate(prompts)])
    scorers = {s.name: s for s in oracle_scorers(toy)}
    assert scorers["oracle_all_right"].score(right, prompts).all()
    wears = np.asarray(["hat" in p for p in prompts])
    assert wears.any()
    np.testing.assert_array_equal(scorers["oracle_hat"].score(bare, prompts), (~wears).astype(float))
    assert scorers["oracle_background"].score(bare, prompts).all()
