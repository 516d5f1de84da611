"""A small search over the sections of the docs: BM25 with the stop words of lunr, which searches many pages of docs."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

_STOP = frozenset(  # lunr 2.3.9, stop_word_filter.js, as it is
    "a able about across after all almost also am among an and any are as at be because been but by can cannot could "
    "dear did do does either else ever every for from get got had has have he her hers him his how however i if in "
    "into is it its just least let like likely may me might most must my neither no nor not of off often on only or "
    "other our own rather said say says she should since so some than that the their them then there these they this "
    "tis to too twas us wants was we were what when where which while who whom why will with would yet you your".split()
)
_ENDING = re.compile(r"(?<=\w{3})(ies|ing|ed|es|s|e|y)$")


def anchor(title: str) -> str:
    """The anchor of a heading, as GitHub makes it: "Faces, and `masks`" -> "faces-and-masks"."""
    plain = re.sub(r"[`*]|\[|\]\([^)]*\)", "", title)
    return re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")


def words(text: str) -> list[str]:
    """The words of a text without stop words, each without its ending: "Which photos?" -> ["photo"]."""
    return [_ENDING.sub("", word) for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in _STOP]


def sections(page: Path) -> dict[str, Counter[str]]:
    """Words of every section, with the page's name, its title and the heading: "page.md#anchor" -> counts.

    "page.md" is what stands before the first "##".
    """
    first, *rest = re.split(r"^#{2,} (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    above = f"{page.stem} {first.partition(chr(10))[0]}"
    texts = {page.name: f"{page.stem} {first}"}
    for title, text in zip(rest[::2], rest[1::2], strict=True):
        texts[f"{page.name}#{anchor(title)}"] = f"{above} {title} {text}"
    return {place: Counter(words(text)) for place, text in texts.items()}


def ranked(question: str, counts: dict[str, Counter[str]], k1: float = 1.2, b: float = 0.75) -> list[str]:
    """The places that hold a word of the question, best first by BM25."""
    usual = sum(c.total() for c in counts.values()) / len(counts)
    scores: Counter[str] = Counter()
    for word in sorted(set(words(question))):
        holding = [place for place, c in counts.items() if c[word]]
        rare = math.log(1 + (len(counts) - len(holding) + 0.5) / (len(holding) + 0.5))
        for place in holding:
            often, length = counts[place][word], counts[place].total() / usual
            scores[place] += rare * often * (k1 + 1) / (often + k1 * (1 - b + b * length))
    return [place for place, _ in scores.most_common()]
