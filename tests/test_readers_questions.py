"""Tests that a search of the docs in a user's words leads to the answer.

What it proves: of all sections of docs/*.md, ranked by BM25 for the question as it stands, without weight on headings,
the one that answers is among the first three. docs/questions.md is left out, since it holds the questions themselves.

What it does not prove: that the answer is right or enough, that other words find it too ("8gb" finds "8 GB" only where
both are written), or that a site's own search ranks alike. The questions were written before the docs were mended by
them, and the docs were mended until they passed: a new question may fail.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs_search import anchor, ranked, sections

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "questions.md"
FIRST = 3
QUESTIONS = {
    "Will it fit into 12 GB of VRAM?": "memory.md#will-it-fit-into-my-cards-vram",
    "Which photos should I use, and how many?": "choosing.md#which-photos-to-use-and-how-many",
    "Why did it keep my original?": "report.md#why-did-it-keep-my-original",
    "Where is my new LoRA saved?": "your_files.md#where-is-my-lora-and-what-else-is-saved",
    "How long does it take?": "speed.md#how-long-does-it-take",
    "Can I use it with Flux, Z-Image or Illustrious?": "comfyui.md#what-is-supported",
    "It says CUDA out of memory": "when_it_fails.md#out-of-memory",
    "Do I need masks?": "choosing.md#masks-do-you-need-them",
    "My character looks burnt and the style changed": "when_it_fails.md#results",
    "Can I use a turbo or lightning model?": "comfyui.md#turbo-lightning-and-other-fast-models",
    "How many prompts do I need?": "choosing.md#prompts-how-many-do-you-need-and-which",
    "Does it work with a LoRA from kohya, OneTrainer or ai-toolkit?": (
        "lora.md#which-loras-it-takes-kohya-onetrainer-ai-toolkit-musubi-diffusers"
    ),
    "It stopped after one round": "report.md#why-did-it-stop-after-one-round",
    "What is beta?": "method.md#beta-auto-beta-and-the-noise-levels-of-training",
    "Which of my epochs is best?": "headless.md#which-of-my-loras-is-best",
    "Can I stop it and go on later?": "when_it_fails.md#stop-it-and-go-on-later",
    "Will it change my checkpoint?": "your_files.md#will-it-change-my-checkpoint-or-my-lora",
    "Does it upload my pictures anywhere?": "your_files.md#privacy-does-it-send-or-upload-my-pictures-anywhere",
    "What strength should I use for the LoRA?": "comfyui.md#at-which-strength-to-use-the-lora",
    "Does it run on AMD or a Mac?": "hosts.md#amd-intel-mac-and-windows",
    "I only get black images or NaN": "when_it_fails.md#sampling-and-scores",
    "Can I use two GPUs?": "headless.md#several-processes",
    "Can I train the face of a real person?": "faces.md",
    "Can I use it commercially, what is the license?": "your_files.md#licences-may-i-use-it-commercially",
    "The nodes are red or missing after an update": "when_it_fails.md#before-the-run",
    "Do I need to caption my photos?": "choosing.md#which-photos-to-use-and-how-many",
    "How much disk space does it need?": "your_files.md#where-is-my-lora-and-what-else-is-saved",
    "Can I use it on Windows?": "hosts.md#amd-intel-mac-and-windows",
    "is 8gb vram enough": "memory.md#will-it-fit-into-my-cards-vram",
    "how slow is it on a 4090": "speed.md#how-long-does-it-take",
    "number of prompts": "choosing.md#prompts-how-many-do-you-need-and-which",
    "Can I draw candidates with a lightning LoRA?": "headless.md#candidates-in-few-steps",
    "Can it train two characters at once?": "choosing.md#what-it-is",
}
"""A question in a user's words, and the section that answers it."""


@pytest.fixture(scope="module")
def places() -> dict:
    """Words by section of all pages but that of the questions."""
    pages = [page for page in sorted(DOCS.glob("*.md")) if page != PAGE]
    return {place: counts for page in pages for place, counts in sections(page).items()}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answer_is_among_the_first(question: str, places: dict) -> None:
    assert QUESTIONS[question] in places
    assert QUESTIONS[question] in ranked(question, places)[:FIRST]


def test_the_place_of_another_question_is_not(places: dict) -> None:
    """The control: with each question given the next one's place, hardly any is found."""
    wrong = [*list(QUESTIONS.values())[1:], "toybox.md"]
    found = [q for q, place in zip(QUESTIONS, wrong, strict=True) if place in ranked(q, places)[:FIRST]]
    assert len(found) <= 2


def test_a_short_text_with_the_rare_word_comes_first(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# Page\nrounds\n\n## Turbo\na model\n\n## Others\na turbo among models and models\n"
    page.write_text(text, encoding="utf-8")
    assert ranked("Which turbo?", sections(page)) == ["page.md#turbo", "page.md#others"]


def test_every_link_of_the_page_leads_to_a_heading() -> None:
    text = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"\]\((\w+\.md)(?:#([^)\s]+))?\)", text)
    assert len(re.findall(r"^\d+\. \*\*.+\?\*\* .+\]\(", text, re.MULTILINE)) == 10
    assert len(links) >= 10 and len(links) == text.count("](")
    for name, place in links:
        titles = re.findall(r"^#+ (.+)$", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert not place or place in map(anchor, titles), f"{name}#{place}"
