"""Writes the report of a run: one self-contained HTML file, its images as PNG, and all numbers as report.json."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from ..run.files import atomic_path, write_json
from ..run.folder import RunFolder
from .distrust import distrust
from .numbers import Evaluations, collect, read_evaluations
from .pictures import Picture, overview_pictures, round_pictures
from .strength import strength_pictures, strength_warnings
from .words import TRUTH, answer, change_word, moved, reward_names

ROLES = ("reward", "judge", "guard", "oracle")


def build_report(run: RunFolder) -> dict:
    """The content of report.json, without drawing or writing anything; see `write_report`."""
    return _report(run, read_evaluations(run))[0]


def _report(run: RunFolder, found: Evaluations) -> tuple[dict, tuple[str, ...]]:
    """The content of report.json, and the sentences of its answer one by one."""
    numbers = {**collect(run, found), "strength": run.fact("strength")}
    said = answer(numbers, found.scorers)
    facts = {
        "settings_rounds": (run.fact("settings") or {}).get("rounds"),
        "finished": run.fact("rounds") is not None,
        "unfinished": found.unfinished,
        "unseen": run.fact("unseen"),
        "start": run.fact("start"),
        "doubts": run.fact("doubts"),
    }
    words = {"status": said.status, "headline": said.headline, "answer": said.text}
    doubts = [*strength_warnings(run), *distrust(numbers, found.scorers, facts)]
    return {**numbers, **words, "distrust": doubts}, said.sentences


def write_report(run: RunFolder, out: Path | None = None) -> dict:
    """Write report.html, its PNGs and report.json into `out` (default: <run>/report); return report.json's content.

    Keys: `concept`, `rounds`, one object a scorer (`before`, `after`, `gain`, `ci95`, `images`, `prompts`, `verdict`),
    `axes` (joint gain, in standard deviations, of each axis with several scorers), `unseen` (one object a scorer, over
    held-out prompts in unseen contexts), `unscored` (shares of images without a score, of scorers that may give none),
    `per_round`, `pairs`, `training`, `strength` (result of the strength sweep, or
    None), `status`, `headline`, `answer`, `distrust`. Raises UserError when the start was never evaluated.
    """
    out = Path(out) if out else run.path / "report"
    found = read_evaluations(run)
    report, sentences = _report(run, found)
    drawn = [*overview_pictures(run, found, report), *strength_pictures(run), *round_pictures(run, report)]
    pictures = {p.name: p for p in drawn}
    data = {name: picture.png for name, picture in pictures.items()}
    page = _page(run, found, report, sentences, pictures, data)
    for name, png in data.items():
        with atomic_path(out / f"{name}.png") as beside:
            beside.write_bytes(png)
    with atomic_path(out / "report.html") as beside:
        beside.write_text(page, encoding="utf-8")
    write_json(out / "report.json", report)
    return report


# --- the page ---


def _page(
    run: RunFolder,
    found: Evaluations,
    report: Mapping,
    sentences: tuple[str, ...],
    pictures: Mapping[str, Picture],
    data: Mapping[str, bytes],
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    concept = run.fact("concept") or {}
    shown = {
        n: {
            "src": "data:image/png;base64," + base64.b64encode(data[n]).decode("ascii"),
            "alt": p.alt,
            "caption": p.caption,
        }
        for n, p in pictures.items()
    }
    return environment.get_template("report.html").render(
        report=report,
        sentences=sentences,
        concept=concept,
        start=run.fact("start") or {},
        tiles=[
            _row(n, report[n], found.scorers[n])
            for n in (*reward_names(found.scorers), TRUTH)
            if n in found.scorers and n in report
        ],
        groups=[(role, rows) for role in (*ROLES, "other") if (rows := _rows(role, report, found.scorers))],
        shown=shown,
        cloud_rounds=[int(n.removeprefix("cloud_")) for n in shown if n.startswith("cloud_")],
        columns=[(n, str(found.scorers[n].get("title") or n)) for n in found.scorers],
        settings=_flat(run.fact("settings") or {}),
        run_name=run.path.resolve().name,
    )


def _rows(role: str, report: Mapping, scorers: Mapping[str, Mapping]) -> list[dict]:
    def has(about: Mapping) -> bool:
        return about.get("role") == role or (role == "other" and about.get("role") not in ROLES)

    return [_row(name, report[name], about) for name, about in scorers.items() if has(about) and name in report]


def _row(name: str, gain: Mapping, about: Mapping) -> dict:
    """One scorer's table row: texts, the word for its change, and its whisker in percent of the width (0 is at 50)."""
    higher = about.get("higher_is_better")
    word = change_word(gain["verdict"], higher)
    row = {
        "title": str(about.get("title") or name), "word": word, "before": f"{gain['before']:.3f}",
        "after": "-", "gain": "-", "interval": "-", "whisker": None,
        "note": {True: "", False: "lower is better", None: "neither direction is better"}[higher],
    }  # fmt: skip
    if "gain" not in gain:
        return row
    moved_by, interval = moved(gain)
    row |= {"after": f"{gain['after']:.3f}", "gain": moved_by, "interval": interval or "none (one prompt)"}
    low, high = gain["ci95"]
    if low is not None and high is not None:
        reach = max(abs(low), abs(high), abs(gain["gain"]), 1e-9) * 1.1
        row["whisker"] = {
            k: round(50 + 50 * v / reach, 2) for k, v in (("low", low), ("high", high), ("mid", gain["gain"]))
        }
    return row


def _flat(settings: Mapping, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) rows."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, "as for candidates" if value is None else str(value)))
    return rows
