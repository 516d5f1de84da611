"""Tests prompt files, placeholders, the split, and the concept that fills them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.prompts import PromptSet, fill, read_templates, split

PHOTOS = np.zeros((2, 8, 8, 3), np.uint8)


def concept(identifier: str = "sks", class_noun: str = "robot") -> Concept:
    return Concept(identifier, class_noun, PHOTOS)


def written(tmp_path, text: str, encoding: str = "utf-8"):
    path = tmp_path / "prompts – 犬.txt"
    path.write_bytes(text.encode(encoding))
    return path


# --- concept ---


@pytest.mark.parametrize(
    ("identifier", "prompt", "expected"),
    [
        ("sks", "a photo of a sks robot on grass", "a photo of a robot on grass"),
        ("sks", "sks robot, by the sks, sks", "robot, by the ,"),
        ("sks", "asks a robot, sks2, sksy", "asks a robot, sks2, sksy"),
        ("s+k*s", "a s+k*s robot, ssks robot", "a robot, ssks robot"),
        ("<sks>", "a <sks> robot", "a robot"),
        ("[V]", "a [V] robot, a V robot", "a robot, a V robot"),
        (r"a\1b", r"the a\1b robot", "the robot"),
        ("x.y", "a x.y robot, a xzy robot", "a robot, a xzy robot"),
    ],
)
def test_identifier_is_removed_as_a_whole_word(identifier, prompt, expected):
    assert concept(identifier).without_identifier(prompt) == expected


def test_spaces_in_the_subject_are_normalised():
    padded = concept(" sks ", "toy  robot\t")
    assert (padded.identifier, padded.class_noun, padded.subject) == ("sks", "toy robot", "sks toy robot")
    assert padded.without_identifier("a sks toy robot") == "a toy robot"


@pytest.mark.parametrize("field", ["identifier", "class_noun"])
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_word_is_refused_by_name(field, value):
    with pytest.raises(UserError, match=f"^{field} is "):
        concept(**{field: value})


@pytest.mark.parametrize("references", [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)])
def test_no_reference_photo_is_refused(references):
    with pytest.raises(UserError, match="'sks robot' has no reference pictures"):
        Concept("sks", "robot", references)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 8, 9), (2, 8, 8, 1), (8, 8)])
def test_masks_that_do_not_fit_the_photos_are_refused(shape):
    shapes = rf"the masks have shape \{list(shape)}, the reference pictures \[2, 8, 8\]"
    with pytest.raises(UserError, match=f"{shapes}: give one mask per picture, of the same size"):
        Concept("sks", "robot", PHOTOS, masks=np.full(shape, 255, np.uint8))
    masks = np.full((2, 8, 8), 255, np.uint8)
    assert Concept("sks", "robot", PHOTOS, masks=masks).masks is masks


# --- fill ---


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a photo of a {identifier} {class_noun} on grass", "a photo of a sks robot on grass"),
        ("a sks robot on grass", "a sks robot on grass"),
        ("  two {identifier}   {class_noun}s,\ton grass ", "two sks robots, on grass"),
        ("{identifier} {class_noun} – 犬", "sks robot – 犬"),
    ],
)
def test_fill(template, expected):
    assert fill(template, concept()) == expected


@pytest.mark.parametrize("identifier", ["s+k*s", "<sks>", "[V]", r"a\1b", "(", "$^"])
def test_fill_takes_an_identifier_of_any_characters(identifier):
    assert fill("a {identifier} {class_noun}", concept(identifier)) == f"a {identifier} robot"


@pytest.mark.parametrize("name", ["subject", "", "Identifier", "class noun"])
def test_an_unknown_placeholder_is_named(name):
    with pytest.raises(UserError) as error:
        fill(f"a {{{name}}} and a {{identifier}} {{class_noun}}", concept())
    assert f"unknown placeholder {{{name}}}" in str(error.value)
    assert "use {identifier} and {class_noun}" in str(error.value)


@pytest.mark.parametrize(
    "template",
    ["a robot on grass", "a {class_noun}", "a {identifier} on grass", "{class_noun} {identifier}", "he asks robot"],
)
def test_a_prompt_that_lacks_the_subject_is_refused(template):
    with pytest.raises(UserError, match="does not name the concept.*'sks robot'"):
        fill(template, concept())


# --- files ---


def test_tags_comments_and_empty_lines(tmp_path):
    path = written(
        tmp_path,
        "# mine\n\n[grass] a sks robot on grass\n  [at the sea]   a sks robot, sea  \na sks robot alone\n[x]\n",
    )
    assert read_templates(path) == [
        ("grass", "a sks robot on grass"),
        ("at the sea", "a sks robot, sea"),
        ("a sks robot alone", "a sks robot alone"),
        ("[x]", "[x]"),
    ]


def test_byte_order_mark_and_windows_line_ends_are_stripped(tmp_path):
    path = written(tmp_path, "# mine\r\na sks Hündchen\r\n", "utf-8-sig")
    assert read_templates(path) == [("a sks Hündchen", "a sks Hündchen")]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere.txt does not exist"):
        read_templates(tmp_path / "nowhere.txt")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_templates(tmp_path)


def test_another_encoding_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read.*UTF-8"):
        read_templates(written(tmp_path, "a sks Hündchen", "latin-1"))


@pytest.mark.parametrize("text", ["", "\n \n", "# a comment\n"])
def test_an_empty_list_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="holds no prompt"):
        read_templates(written(tmp_path, text))


# --- split ---


def templates(*sizes: int) -> list[tuple[str, str]]:
    return [
        (f"context {c}", f"a {{identifier}} {{class_noun}} in place {c}, view {i}")
        for c, n in enumerate(sizes)
        for i in range(n)
    ]


def contexts(prompts) -> set[str]:
    return {p.split(" in ")[1].split(",")[0] for p in prompts}


def test_the_split_by_hand():
    """Contexts of 5, 2 and 2 at a share of 0.4: 2, 1 and 1 are held out (0.8 of a prompt rounds to 1)."""
    found = split(templates(5, 2, 2), concept())
    assert (len(found.train), len(found.held_out), found.unseen) == (5, 4, ())
    assert contexts(found.train) == contexts(found.held_out) == {"place 0", "place 1", "place 2"}


@given(st.lists(st.integers(2, 7), min_size=1, max_size=5), st.floats(0, 1), st.integers(0, 5))
def test_every_tagged_context_stands_in_both_halves(sizes, share, seed):
    found = split(templates(*sizes), concept(), share, seed)
    assert contexts(found.train) == contexts(found.held_out) and len(contexts(found.train)) == len(sizes)
    assert sorted(found.train + found.held_out) == sorted(fill(t, concept()) for _, t in templates(*sizes))
    assert found.unseen == ()


@given(st.lists(st.integers(1, 4), min_size=5, max_size=9), st.integers(0, 5))
def test_held_out_prompts_of_single_contexts_are_listed_as_unseen(sizes, seed):
    found = split(templates(*sizes), concept(), 0.4, seed)
    singles = {f"place {c}" for c, n in enumerate(sizes) if n == 1}
    assert set(found.unseen) <= set(found.held_out)
    assert contexts(found.unseen) == contexts(found.held_out) - contexts(found.train) <= singles
    assert len(found.unseen) == int(0.4 * len(singles))


def test_split_is_determined_by_the_seed():
    many = templates(*[6] * 6)
    assert split(many, concept(), seed=1) == split(many, concept(), seed=1)
    assert split(many, concept(), seed=1) != split(many, concept(), seed=2)


def test_a_prompt_given_twice_counts_once():
    found = split([*templates(2), *templates(2)], concept())
    assert len(found.train) == len(found.held_out) == 1


def test_prompt_in_two_contexts_is_kept_on_one_side_or_refused():
    """The same prompt under several tags: either the split keeps it on one side, or it is refused by name."""
    twice = [(context, f"a sks robot {i}") for context in ("one", "two") for i in range(2)]
    outcomes = set()
    for seed in range(20):
        try:
            found = split(twice, concept(), seed=seed)
            assert not set(found.train) & set(found.held_out)
            outcomes.add("kept")
        except UserError as error:
            assert "'a sks robot " in str(error) and "both a training and a held-out prompt" in str(error)
            outcomes.add("refused")
    assert outcomes == {"kept", "refused"}


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_prompts_are_refused(count):
    with pytest.raises(UserError, match="no held_out prompt"):
        split(templates(*[1] * count), concept())


@pytest.mark.parametrize(("train", "held_out", "missing"), [((), ("a",), "train"), (("a",), (), "held_out")])
def test_an_empty_half_is_refused(train, held_out, missing):
    with pytest.raises(UserError, match=f"no {missing} prompt"):
        PromptSet(train, held_out)


def test_a_prompt_on_both_sides_is_refused():
    with pytest.raises(UserError, match="'b' is both a training and a held-out prompt"):
        PromptSet(("a", "b"), ("b", "c"))


def test_a_small_share_of_few_prompts_still_holds_one_out():
    """A tenth of five rounds down to none, but at least one prompt is held out."""
    templates = [(f"a photo of a {{identifier}} {{class_noun}} {i}",) * 2 for i in range(5)]
    prompts = split(templates, concept(), held_out_share=0.1)
    assert (len(prompts.train), len(prompts.held_out)) == (4, 1)
