"""Tests YAML as people write it: duplicate keys, backslashes, tabs, encodings, and hub names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.config import EXAMPLE, example_yaml, read_config
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.yaml_text import parse, read_text


def refusal(text: str) -> str:
    with pytest.raises(UserError) as error:
        parse(text, "config file x.yaml")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "name", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", (1, 3)),
        ("m:\n  x: 1\n\n  x: 2\n", "m.x", (2, 4)),
        ("m: {x: 1, x: 2}", "m.x", (1, 1)),
        ("l:\n- {b: 1}\n- b: 1\n  c: 2\n  b: 3\n", "l.b", (3, 5)),
        ('model:\n  path: a\n"model":\n  path: b\n', "model", (1, 3)),
    ],
)
def test_a_key_given_twice_is_refused_with_both_lines(text, name, lines):
    assert f"{name} is given twice, in line {lines[0]} and in line {lines[1]}" in refusal(text)


def test_equal_keys_in_other_places_and_merges_are_allowed():
    text = "base: &b {x: 1, y: 2}\nm: {<<: *b, x: 3}\nn: {x: 4}\n"
    assert parse(text, "f") == yaml.safe_load(text) == {"base": {"x": 1, "y": 2}, "m": {"x": 3, "y": 2}, "n": {"x": 4}}


@pytest.mark.parametrize(
    "path",
    [
        r"D:\train\new",
        r"C:\Users\me\photos",
        r"D:\models",
        r"\\server\share",
        r".\new",
        r"..\train",
        r"C:\new folder\a",
    ],
)
def test_a_windows_path_in_double_quotes_is_explained(path):
    said = refusal(f'a: 1\nmodel:\n  path: "{path}"\n')
    assert "single quotes, or with forward slashes (D:/train/new)" in said and path in said and "3" in said
    for right in (f"'{path}'", path, '"' + path.replace("\\", "\\\\") + '"', path.replace("\\", "/")):
        found = parse(f"model:\n  path: {right}\n", "f")["model"]["path"]
        assert found in (path, path.replace("\\", "/"))


def test_what_yaml_would_read_is_shown_with_its_signs_named():
    assert r'path in line 1 is "D:\train\new", which YAML reads as D:<tab>rain<new line>ew.' in refusal(
        r'path: "D:\train\new"'
    )


def test_escapes_that_are_meant_stay():
    assert parse(r'a: "\u00fc \"x\" \\ \x41"', "f") == {"a": 'ü "x" \\ A'}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n\tb: 1\n", "line 2 is indented with a tab"),
        ("a:\n  b: 1\n\tc: 2\n", "line 3 is indented with a tab"),
        ("a: 1\n---\nb: 2\n", "line 2 starts a second document"),
        ("[" * 20000, "nested too deeply"),
        ("a: 1\0", "special characters are not allowed"),
        ("a: 2026-13-45", "is not valid YAML"),
    ],
)
def test_text_that_is_no_yaml_is_explained(text, said):
    assert said in refusal(text) and "config file x.yaml is not valid YAML" in refusal(text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path, encoding):
    path = tmp_path / "a.yaml"
    path.write_bytes("output: läufe\n".encode(encoding))
    with pytest.raises(UserError, match="it is saved as UTF-16.*Save it as UTF-8"):
        read_text(path, "config file")


def test_other_encodings_are_named_by_line_and_a_mark_is_dropped(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("a: 1\nb: Hündchen\n".encode("cp1252"))
    with pytest.raises(UserError, match="line 2 is not UTF-8"):
        read_text(path, "config file")
    path.write_bytes("a: 1\n".encode("utf-8-sig"))
    assert read_text(path, "config file") == "a: 1\n"


WORDS = st.text(st.characters(categories=("L", "N", "P", "S")), max_size=8)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=8,
    )
)
@settings(max_examples=150, deadline=None)
def test_what_yaml_writes_is_read_back(value):
    assert parse(yaml.safe_dump(value, allow_unicode=True), "f") == value


@given(st.text(alphabet="ab:-{}[]\"'\\\t\n &*!|>#,?0", max_size=40))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_as_yaml_does_or_refused(text):
    try:
        found = parse(text, "f")
    except UserError:
        return
    assert repr(found) == repr(yaml.safe_load(text))


# --- in the config ---


def config(tmp_path: Path, old: str = "", new: str = ""):
    text = example_yaml()
    assert old in text
    path = tmp_path / "c.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return read_config(path)


def test_hub_names_do_not_depend_on_the_folder(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    for folder in (tmp_path, tmp_path / "deep"):
        monkeypatch.chdir(folder)
        found = config(tmp_path, 'reward: "scorers/clip"', 'reward: "hf-hub:laion/CLIP-b32"')
        assert found.scorers.rewards == ("hf-hub:laion/CLIP-b32",)
        found = config(tmp_path, 'reward: "scorers/clip"', 'reward: ["clip", "hf-hub:a/b"]')
        assert found.scorers.rewards == (tmp_path / "clip", "hf-hub:a/b")
        assert str(config(tmp_path, "judge: null", 'judge: "hf-hub:a/b.c"').scorers.judge) == "hf-hub:a/b.c"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('path: "my-model"', 'path: "hf-hub:a/b"', "model.path is 'hf-hub:a/b', but names on the hub are for scorers"),
        ('references: "photos"', 'references: "hf-hub:a/b"', "concept.references is 'hf-hub:a/b', but"),
        ('reward: "scorers/clip"', 'reward: "hf-hub:clip"', "no name on the hub: write hf-hub:<organisation>/<model>"),
        ('reward: "scorers/clip"', 'reward: "hf-hub:a/b/c"', "is 'hf-hub:a/b/c', which is no name on the hub"),
    ],
)
def test_hub_names_in_other_places_are_refused(tmp_path, old, new, said):
    with pytest.raises(UserError) as error:
        config(tmp_path, old, new)
    assert said in str(error.value)


def test_a_hub_name_of_a_dinov2_judge_is_refused(tmp_path):
    text = example_yaml().replace("judge: null", 'judge: "hf-hub:facebook/dinov2-base"')
    (tmp_path / "c.yaml").write_text(text.replace('"open_clip"', '"dinov2"'), encoding="utf-8")
    with pytest.raises(UserError, match="scorers.judge is .* for scorers of open_clip alone"):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("value", ["no", "007", "1.5"])
def test_words_that_yaml_reads_as_numbers_are_explained(tmp_path, value):
    assert EXAMPLE["concept"]["identifier"] == "sks"
    with pytest.raises(UserError, match="concept.identifier: must be text; put it in quotes"):
        config(tmp_path, 'identifier: "sks"', f"identifier: {value}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("# all\n", "it is empty"),
        ("output:runs", "it is one text: a colon and a space"),
        ("7", "int"),
    ],
)
def test_documents_without_settings_are_named(tmp_path, text, said):
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"holds no settings .*{said}"):
        read_config(tmp_path / "c.yaml")
