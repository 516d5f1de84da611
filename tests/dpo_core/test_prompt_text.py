"""Tests prompts against the text encoder: other tools' syntax, the token limit, and embeddings of several vectors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.prompt_text import (
    check_encoded,
    first_vector_only,
    plain_text,
    same_conditioning,
    vectors,
)
from dreambooth_dpo.toybox.models import weights_folder

CONCEPT = Concept("sks", "robot", np.zeros((1, 4, 4, 3), np.uint8))


class Words:
    """A tokenizer in small: a token for each word in lower case, between a start and an end mark."""

    def __init__(self, limit: int = 8, added: tuple[str, ...] = ()) -> None:
        self.model_max_length, self.added_tokens_encoder = limit, {t: i for i, t in enumerate(added)}
        self.words: list[str] = ["<start>", "<end>"]

    def __call__(self, text: str):
        words = text.lower().split()
        self.words += [w for w in dict.fromkeys(words) if w not in self.words]
        return SimpleNamespace(input_ids=[0, *(self.words.index(w) for w in words), 1])

    def decode(self, tokens: list[int]) -> str:
        return " ".join(self.words[t] for t in tokens)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a (red:1.3) sks robot", "(red:1.3)"),
        ("a (sks robot:1.2) on grass", "weight"),
        ("a sks robot, (very wet fur : -.5)", "(very wet fur : -.5)"),
        ("a sks robot <lora:my_robot:0.8>", "<lora:my_robot:0.8>"),
        ("a sks robot <LYCO:x:1>", "<LYCO:x:1>"),
        ("a sks robot, embedding:bad_hands", "embedding:bad_hands"),
        ("a sks robot in [winter:summer:0.5]", "[winter:summer:0.5]"),
        ("a sks robot in [winter|summer]", "[winter|summer]"),
    ],
)
def test_syntax_of_other_tools_is_refused_by_prompt(text, named):
    with pytest.raises(UserError) as error:
        plain_text([["a sks robot"], [text]], CONCEPT)
    assert str(error.value).startswith(f"prompt {text!r}: ") and named in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "a sks robot (16:9)",
        "a sks robot, aspect ratio 3:2",
        "a sks robot (a toy, new)",
        "a sks robot: portrait",
        "a sks robot at 12:30",
        "a sks robot on [grass]",
        "a sks robot <3",
    ],
)
def test_usual_punctuation_passes(text):
    assert plain_text([[text]], CONCEPT) == []


def test_an_identifier_may_look_like_syntax():
    for identifier in ("<lora:x>", "(v:1.0)", "((V))"):
        concept = Concept(identifier, "robot", np.zeros((1, 4, 4, 3), np.uint8))
        assert plain_text([[f"a {identifier} robot"]], concept) == []


def test_emphasis_commands_and_repeats_are_said():
    said = plain_text(
        [["a ((red)) sks robot", "a sks robot BREAK grass", "a sks robot --ar 3:2", "x sks robot", "x sks robot"]],
        CONCEPT,
    )
    assert said == [
        "prompt 'x sks robot' is given 2 times and counts once",
        "prompt 'a ((red)) sks robot': '((red))' (brackets) has no effect; it is read as text",
        "prompt 'a sks robot BREAK grass': 'BREAK' (a command of another tool) has no effect; it is read as text",
        "prompt 'a sks robot --ar 3:2': '--ar 3:2' (a command of another tool) has no effect; it is read as text",
    ]


# --- the token limit ---


def test_prompts_that_differ_after_the_limit_are_refused():
    """Eight tokens: start, six words, end. The seventh word is cut, and it was the only difference."""
    same = "a sks robot on green grass"
    with pytest.raises(UserError) as error:
        same_conditioning(["a sks robot", f"{same} today", f"{same} tomorrow"], [Words()])
    assert str(error.value) == (
        f"prompts '{same} today' and '{same} tomorrow' are one prompt to the model; both are cut after 8 tokens, which "
        "is all that the text encoder reads: shorten them."
    )


def test_words_that_are_cut_are_said():
    assert same_conditioning(["a sks robot on green grass today at noon", "a sks robot"], [Words()]) == [
        "prompt 'a sks robot on green grass today at noon' is longer than the text encoder's 8 tokens: 'today at noon' "
        "is cut off"
    ]
    assert same_conditioning(["a sks robot on green grass"], [Words()]) == [], "just fits"


def test_prompts_that_differ_in_capitals_alone_are_refused():
    with pytest.raises(UserError, match="'A sks robot' and 'a sks robot' are one prompt.*capitals, spaces or unknown"):
        same_conditioning(["A sks robot", "a sks robot", "a sks robot"], [Words()])


def test_a_second_encoder_may_read_more():
    """As CLIP beside T5: nothing is lost while one of them reads all; what is lost is what the longest one loses."""
    long = "a sks robot on green grass today at noon"
    assert same_conditioning([long, long + " now"], [Words(8), Words(20)]) == []
    assert same_conditioning([long], [Words(8), Words(9)])[0].endswith("9 tokens: 'at noon' is cut off")


# --- embeddings of several vectors ---


def test_an_embedding_is_written_with_all_of_its_tokens():
    """As diffusers' maybe_convert_prompt; what is written out stays, and other tokens are left alone."""
    tokenizer = Words(added=("<cat>", "<cat>_1", "<cat>_2", "<dog>"))
    for text, expected in (
        ("a <cat> on grass", "a <cat> <cat>_1 <cat>_2 on grass"),
        ("a <cat> <cat>_1 <cat>_2 on grass", "a <cat> <cat>_1 <cat>_2 on grass"),
        ("a <dog> and a robot", "a <dog> and a robot"),
    ):
        assert vectors(text, tokenizer) == expected
        if text == expected:
            first_vector_only([text], [tokenizer])
        else:
            with pytest.raises(UserError, match=r"several vectors.*all of its tokens: 'a <cat> <cat>_1 <cat>_2 on"):
                first_vector_only([text], [tokenizer])


def test_every_tokenizer_of_a_pipeline_counts():
    pipe = SimpleNamespace(tokenizer=Words(20), tokenizer_2=Words(8), tokenizer_3=None)
    assert check_encoded(["a sks robot on green grass today"], pipe) == []
    assert len(check_encoded(["a sks robot on green grass today"], SimpleNamespace(tokenizer=Words(8)))) == 1
    assert check_encoded(["a sks robot"], SimpleNamespace()) == []
    pipe.tokenizer_2 = Words(8, ("sks", "sks_1"))
    with pytest.raises(UserError, match="several vectors"):
        check_encoded(["a sks robot"], pipe)


def test_the_toyboxs_own_tokenizer():
    """transformers' tokenizer: what is said of its prompts is what it drops."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights_folder("pipeline") / "tokenizer")
    limit = tokenizer.model_max_length
    long = "a sks robot " + "on green grass " * limit
    kept = tokenizer(long, truncation=True, max_length=limit).input_ids
    (said,) = same_conditioning(["a sks robot", long.strip()], [tokenizer])
    assert f"{limit} tokens" in said
    with pytest.raises(UserError, match="are one prompt to the model; both are cut after"):
        same_conditioning([f"{long}today", f"{long}tomorrow"], [tokenizer])
    assert len(kept) == limit
    tokenizer.add_tokens(["<cat>", "<cat>_1"])
    with pytest.raises(UserError, match="all of its tokens: 'a <cat> <cat>_1 robot'"):
        first_vector_only(["a <cat> robot"], [tokenizer])
