"""Tests that every language has all texts of English (locales/en is generated: tests/host/test_words.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "locales"
LANGUAGES = sorted(path.name for path in FOLDER.iterdir())
FULL_STOP = {"ja": "。", "zh": "。"}  # Any other language: "."


def entries(language: str) -> dict[tuple[str, ...], str]:
    """Every text by its path."""

    def walk(part: dict, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
        for key, value in part.items():
            yield from walk(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]

    return dict(walk(json.loads((FOLDER / language / "nodeDefs.json").read_text(encoding="utf-8")), ()))


def test_there_are_other_languages_than_english():
    assert "en" in LANGUAGES and len(LANGUAGES) > 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_the_same_texts_in_the_same_order(language: str):
    assert list(entries(language)) == list(entries("en"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_empty_or_read_as_a_placeholder(language: str):
    for path, text in entries(language).items():
        assert text.strip() == text != "", path
        # vue-i18n's special characters may appear only as literals: {'{'}.
        assert not re.search(r"[{}@|$]", re.sub(r"\{'[{}@|$]'\}", "", text)), path


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_texts_are_translated(language: str):
    english = entries("en")
    for path, text in entries(language).items():
        assert text != english[path], path
        if path[-1] in ("tooltip", "description"):
            assert text.endswith(FULL_STOP.get(language, ".")), path


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_numbers_are_the_same(language: str):
    """Limits and recommended values agree; a decimal comma and "bis" depend on the language."""
    english = entries("en")
    for path, text in entries(language).items():
        numbers, told = (
            sorted(set(re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", t)))
            for t in (re.sub(r"(\d),(\d)", r"\1.\2", text), english[path])
        )
        missing = {n for n in told if n not in numbers}
        assert not missing or path[-1] == "name", (path, missing)
