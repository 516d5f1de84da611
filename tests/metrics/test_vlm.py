"""Tests a tiny Qwen2.5-VL that answers yes/no questions, against a forward that is made by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from judge_models import WORDS, vlm_tokenizer, write_vlm
from safetensors.torch import load_file, save_file

from dreambooth_dpo.metrics.answers import Answerer, QuestionScorer
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.vlm import VisionLanguageModel, answer_tokens

QUESTION = 'Does this figure show "a red robot in snow"? Please answer yes or no.'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vlm(tmp_path_factory.mktemp("vlm") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> VisionLanguageModel:
    return VisionLanguageModel(folder)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)


def by_hand(folder: Path, image: np.ndarray) -> tuple[float, float]:
    """Log-probabilities of yes (Yes, yes) and no (No, no): tokens written down here, one picture, softmax in numpy."""
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

    said = ["<|im_start|>", "user", "<|vision_start|>", *["<|image_pad|>"] * 4, "<|vision_end|>", "Does", "this"]
    said += ["figure", "show", '"', "a", "red", "robot", "in", "snow", "<unk>", "Please", "answer", "yes", "or", "no"]
    said += [".", "<|im_end|>", "<|im_start|>", "assistant"]  # '"?' is one word that the tokenizer does not know
    ids = torch.tensor([[WORDS.index(word) for word in said]])
    pixels = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56)([image], return_tensors="pt")
    assert pixels["image_grid_thw"].tolist() == [[1, 4, 4]]
    kinds = (ids == WORDS.index("<|image_pad|>")).int()
    with torch.no_grad():
        found = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()(
            input_ids=ids, mm_token_type_ids=kinds, **pixels
        )
    shares = np.exp(found.logits[0, -1].double().numpy())
    shares /= shares.sum()
    yes, no = (shares[[WORDS.index(w), WORDS.index(w.lower())]].sum() for w in ("Yes", "No"))
    return float(np.log(yes)), float(np.log(no))


def test_answers_are_those_of_a_forward_by_hand_whatever_the_batch(folder, model, images, monkeypatch):
    assert isinstance(model, Answerer) and model.name == "qwen2_5_vl tiny"
    theirs = np.asarray([by_hand(folder, image) for image in images])
    np.testing.assert_allclose(model.answers(images, QUESTION), theirs, atol=1e-5)
    assert np.ptp(theirs[:, 0] - theirs[:, 1]) > 1e-3
    monkeypatch.setattr(model, "_batch", 2)
    np.testing.assert_allclose(model.answers(images, QUESTION), theirs, atol=1e-5)
    assert model.answers(images[:0], QUESTION).shape == (0, 2)


def test_score_is_the_probability_of_yes_over_the_questions(folder, model, images):
    scorer = QuestionScorer(model, lambda prompt: prompt.replace("sks ", ""), parts=False)
    logs = model.answers(images, QUESTION)
    theirs = np.exp(logs[:, 0]) / np.exp(logs).sum(axis=1)
    np.testing.assert_allclose(scorer.score(images, ["a red sks robot in snow"] * 3), theirs, atol=1e-6)


def test_fingerprint_sees_weights_and_template_but_not_the_folder(folder, model, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert VisionLanguageModel(copy).fingerprint == model.fingerprint
    half = VisionLanguageModel(copy, precision="bf16")
    (copy / "chat_template.jinja").write_text(
        (copy / "chat_template.jinja").read_text(encoding="utf-8").replace("user", "robot") + " ", encoding="utf-8"
    )
    other_chat = VisionLanguageModel(copy)
    weights = load_file(copy / "model.safetensors")
    weights[_norm(weights)][3] += 0.01
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    marks = {m.fingerprint for m in (model, half, other_chat, VisionLanguageModel(copy))}
    assert len(marks) == 4


def test_the_model_is_put_away_and_returns(folder, images, monkeypatch):
    model, moves = VisionLanguageModel(folder), []
    monkeypatch.setattr(model._model, "to", lambda where: moves.append(str(where)))
    scorer = QuestionScorer(model, str)
    scorer.rest()
    scorer.score(images, ["a red robot"] * 3)
    assert moves == []  # on a CPU
    model.device = torch.device("meta")  # any other device; the move itself is recorded above, not made
    monkeypatch.setattr(model, "_asked", lambda text, some: np.zeros((len(some), 2)))
    model.answers(images, QUESTION)
    scorer.rest()
    assert moves == ["meta", "cpu"]


def test_yes_and_no_must_be_single_tokens():
    assert answer_tokens(vlm_tokenizer(), "tiny") == ([10, 12], [11, 13])
    upper = [w for w in WORDS if w != "yes"]
    assert answer_tokens(vlm_tokenizer(upper), "tiny") == ([upper.index("Yes")], [upper.index("No")])
    with pytest.raises(MetricsError, match=r"tokenizer of tiny has no single known tokens for yes and no \('Yes' is 1"):
        answer_tokens(vlm_tokenizer([w for w in WORDS if w not in ("yes", "No")]), "tiny")


def test_folders_that_cannot_answer_are_refused(folder, dino_folder, tmp_path):
    with pytest.raises(MetricsError, match=r"nowhere does not exist(?s:.*)hf download Qwen(?s:.*)give another folder"):
        VisionLanguageModel(tmp_path / "nowhere")
    mute = Path(shutil.copytree(folder, tmp_path / "mute"))
    (mute / "chat_template.jinja").unlink()
    with pytest.raises(MetricsError, match="has no chat template for pictures"):
        VisionLanguageModel(mute)
    short = Path(shutil.copytree(folder, tmp_path / "short"))
    weights = load_file(short / "model.safetensors")
    del weights[_norm(weights)]
    save_file(weights, short / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MetricsError, match=r"1 of the model's weights are missing .*norm\.weight"):
        VisionLanguageModel(short)
    with pytest.raises(MetricsError, match="no chat template for pictures"):
        VisionLanguageModel(dino_folder)
    with pytest.raises(MetricsError, match=r"precision is 'int8'"):
        VisionLanguageModel(folder, precision="int8")


def _norm(weights: dict) -> str:
    """The name of the language model's last norm."""
    (name,) = [k for k in weights if k.endswith("norm.weight") and "layers" not in k and "visual" not in k]
    return name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks where a GPU's memory goes: needs one")
def test_on_a_gpu_the_model_comes_and_goes(folder, model, images):
    found = VisionLanguageModel(folder, device="cuda", precision="fp32")
    assert next(found._model.parameters()).device.type == "cpu"
    np.testing.assert_allclose(found.answers(images, QUESTION), model.answers(images, QUESTION), atol=1e-2)
    assert next(found._model.parameters()).is_cuda
    found.rest()
    assert next(found._model.parameters()).device.type == "cpu"
