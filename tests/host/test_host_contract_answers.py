"""The contract of host_answers.py: logits of the first token of an answer, by a tiny model of the host's own class."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from contracts import changed

from dreambooth_dpo.dpo_core.backends.comfyui import host
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.metrics.answers import Answerer, QuestionScorer
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("as_nodes_run")
QUESTION = 'Does this figure show "a red robot"? Please answer yes or no.'
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {"hidden_size": 128, "intermediate_size": 48, "depth": 2, "deepstack_visual_indexes": [0]}


@pytest.fixture(scope="module")
def clip(comfyui):
    """A CLIP of the host's Qwen3-VL with two layers and random weights; skipped where the host has none."""
    qwen3vl = pytest.importorskip("comfy.text_encoders.qwen3vl", reason="this host has no Qwen3-VL")
    import comfy.sd

    kind = "qwen3vl_4b"
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode(False):
        patch.setitem(qwen3vl.QWEN3VL_VISION, kind, VISION)
        target = SimpleNamespace(params={}, clip=qwen3vl.te(model_type=kind), tokenizer=qwen3vl.tokenizer(kind))
        options = {f"{kind}_model_config": {**TEXT, "num_key_value_heads": 1}, "dtype": torch.float32}
        made = comfy.sd.CLIP(target, model_options=options)
        generator = torch.Generator().manual_seed(0)
        for parameter in made.cond_stage_model.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def picture(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images[:1].astype(np.float32) / 255)


def test_first_answer_is_the_hosts_own_choice_and_its_hidden_state_times_the_embedding(clip, images):
    """By hand: the host's prefill of its own tokens, the last position times the tied embedding of the 4B model."""
    given = host.question_tokens(clip, QUESTION, picture(images))
    logits = host.first_answer(clip, QUESTION, picture(images))
    inner = clip.cond_stage_model.qwen3vl_4b
    assert "logits" not in vars(inner.transformer), changed("the model's own logits are not put back")
    assert clip.generate(given, do_sample=False, max_length=1) == [int(logits.argmax())]
    embeds, _, _, about = inner.process_tokens([[t[0] for t in rows] for rows in given["qwen3vl_4b"]], "cpu")
    hidden = inner.transformer(None, embeds=embeds.float(), embeds_info=about)[0]
    by_hand = hidden[0, -1] @ inner.transformer.model.embed_tokens.weight.T
    torch.testing.assert_close(logits, by_hand, atol=2e-3, rtol=0)
    assert logits.std() > 0.02


def test_answer_tokenizer_and_question_tokens_hold_one_picture_and_the_question(clip, images):
    tokenizer = host.answer_tokenizer(clip)
    assert len(tokenizer.encode("Yes")) == len(tokenizer.encode("no")) == 1
    (rows,) = host.question_tokens(clip, QUESTION, picture(images))["qwen3vl_4b"]
    assert sum(isinstance(t[0], dict) for t in rows) == 1, changed("a question's picture is no token any more")
    said = tokenizer.decode([t[0] for t in rows if not isinstance(t[0], dict)])
    assert QUESTION in said and said.rstrip().endswith(("assistant", "</think>"))


def test_the_answerer_scores_pictures_one_by_one(clip, images):
    from dreambooth_dpo.nodes.host.answers import ClipAnswerer

    answerer = ClipAnswerer(clip)
    logs = answerer.answers(images, QUESTION)
    tokenizer = host.answer_tokenizer(clip)
    shares = host.first_answer(clip, QUESTION, picture(images)).double().softmax(-1)
    for column, words in enumerate((("Yes", "yes"), ("No", "no"))):
        theirs = sum(float(shares[tokenizer.encode(word)[0]]) for word in words)
        assert logs[0, column] == pytest.approx(np.log(theirs), abs=1e-6)
    assert isinstance(answerer, Answerer) and logs.shape == (2, 2) and not np.allclose(logs[0], logs[1])
    assert answerer.answers(images[:0], QUESTION).shape == (0, 2)
    assert QuestionScorer(answerer, str).fingerprint != QuestionScorer(ClipAnswerer(clip), str, parts=False).fingerprint
    assert ClipAnswerer(clip).fingerprint == answerer.fingerprint


def test_a_text_encoder_that_only_encodes_is_refused(comfyui):
    with pytest.raises(UserError, match=r"the text encoder \(.*\) on ComfyUI .* answers no questions: it only encodes"):
        host.answer_tokenizer(native_toybox()[1])


def test_qwen25_vl_is_refused_because_the_host_leaves_its_output_layer_out(comfyui):
    class Qwen25_7BVLI:
        def logits(self, hidden):
            raise AssertionError("it must not be asked")

    class Clip:
        cond_stage_model = SimpleNamespace(clip="qwen25_7b", qwen25_7b=SimpleNamespace(transformer=Qwen25_7BVLI()))

        def generate(self):
            raise AssertionError("it must not be asked")

    with pytest.raises(UserError, match=r"Qwen2\.5-VL .* without its output layer.*Load Qwen3-VL"):
        host.first_answer(Clip(), QUESTION, torch.zeros(1, 8, 8, 3))


def test_load_scorer_takes_the_clip_for_questions_alone(nodes, clip):
    load = nodes["DBDPO_LoadScorer"].execute
    assert load("questions to clip", "", False, "picture", clip).args[0].name.startswith("text encoder Qwen3VL")
    for given, said in (
        (("questions to clip", "", False, None, None), "no clip is connected: connect a vision-language model"),
        (("questions to clip", "", True, None, clip), "augment averages embeddings"),
        (("questions to clip", "", False, "patches", clip), "does not score fidelity: set it to picture"),
        (("toybox reward", "", False, None, clip), r"scorer is 'toybox reward', which uses no clip"),
    ):
        with pytest.raises(Exception, match=said):
            load(*given)
