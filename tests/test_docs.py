"""Tests that what README and docs point to exists: files, headings, commands of the command line, benchmarks."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import typer.main
from docs_search import anchor

from dreambooth_dpo.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_COMMAND = re.compile(r"dreambooth-dpo ([a-z][a-z-]+)")
_MODULE = re.compile(r"python -m (dreambooth_dpo(?:\.\w+)*)")
_SCRIPT = re.compile(r"python (tools/\w+\.py)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: "## Faces, and masks" -> "faces-and-masks"."""
    return {anchor(title) for title in _HEADING.findall(page.read_text(encoding="utf-8"))}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, place = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (place and target.suffix == ".md" and place not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = set(typer.main.get_command(app).commands)
    assert set(_COMMAND.findall(text)) - known == set()
    modules = set(_MODULE.findall(text))
    assert [m for m in modules if importlib.util.find_spec(m) is None] == []
    assert [s for s in _SCRIPT.findall(text) if not (ROOT / s).is_file()] == []


def test_anchors_are_made_as_github_makes_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `code`, and [a link](x.md)\n\n## Which of my LoRAs is best?\n", encoding="utf-8")
    assert anchors(page) == {"a-code-and-a-link", "which-of-my-loras-is-best"}


def test_the_pages_were_found() -> None:
    assert len(PAGES) > 15 and sum(len(_LINK.findall(p.read_text(encoding="utf-8"))) for p in PAGES) > 60
