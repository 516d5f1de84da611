"""Tests the plots of the strength sweep and its section of the report."""

from __future__ import annotations

import math

import numpy as np
import pytest
from loops import changed, make_loop

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.evaluation.stop_rule import Interval
from dreambooth_dpo.dpo_core.evaluation.strength import StrengthPoint, Sweep
from dreambooth_dpo.dpo_core.loop.rounds import Loop
from dreambooth_dpo.dpo_core.loop.strength_sweep import sweep
from dreambooth_dpo.dpo_core.report.page import write_report
from dreambooth_dpo.dpo_core.report.plots.figure import figure_image
from dreambooth_dpo.dpo_core.report.plots.strength import strength_figure, strength_strip

SETTINGS = changed(rounds=1, stop={"rule": "last"}, strength={"strengths": (0.0, 0.5, 1.0, 1.5)}, sweep=True)


def point(strength: float, low: float, broken: tuple[str, ...] = (), high: float = 2.0) -> StrengthPoint:
    level = Interval(0.5, 0.4, 0.6)
    return StrengthPoint(
        strength, level, level, Interval(0.0 if math.isinf(low) else (low + high) / 2, low, high), broken
    )


ORIGINAL = point(0, 0.0, high=0.0)


@pytest.fixture
def trained(tmp_path) -> Loop:
    """A loop whose adapter has an effect; no images drawn yet."""
    loop = make_loop(tmp_path / "trained", settings=SETTINGS)
    loop.adapter.load({k: v + 0.4 for k, v in loop.adapter.state().items()})
    return loop


def test_figure_marks_the_recommended_strength_and_failed_guards():
    points = [ORIGINAL, point(0.5, 0.2), point(1, 0.4, ("the judge fell",)), point(1.5, -math.inf, high=math.inf)]
    figure = strength_figure(points, 0.5)
    lines = {line.get_label(): line for line in figure.axes[2].lines}
    assert list(lines["recommended: 0.5"].get_xdata()) == [0.5] and list(lines["a guard failed"].get_xdata()) == [1]
    assert list(lines["gain"].get_xdata()) == [0, 0.5, 1, 1.5]
    assert np.asarray(figure_image(figure)).shape[1] == 1024
    labels = [line.get_label() for line in strength_figure([ORIGINAL, point(1, -0.5)], 0.0).axes[2].lines]
    assert "recommended: 0, the original" in labels and "a guard failed" not in labels


def test_strip_has_a_column_per_strength_and_frames_the_recommended_one(trained):
    found = sweep(trained)
    image = np.asarray(strength_strip(trained.run, Sweep(found.points, 0.5, "")))
    other = np.asarray(strength_strip(trained.run, Sweep(found.points, 1.0, "")))
    assert image.shape == other.shape
    changed_columns = np.nonzero((image != other).any((0, 2)))[0]
    # The text is 256 wide, each column 136: only those of 0.5 and 1 may differ.
    assert 256 + 136 <= changed_columns.min() and changed_columns.max() <= 256 + 3 * 136 + 8


def test_the_report_has_a_section_on_strength(tmp_path):
    loop = make_loop(tmp_path / "run", settings=SETTINGS)
    loop.go()
    loop.run.set_fact("settings", SETTINGS.model_dump(mode="json"))
    report = write_report(loop.run)
    folder = loop.run.path / "report"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert report["strength"] == loop.run.fact("strength")
    assert "<h2>Strength</h2>" in page and report["strength"]["words"] in page
    assert (folder / "strength.png").is_file() and (folder / "strength_strip.png").is_file()
    warned = [s for s in report["distrust"] if s.startswith("The strength sweep found no strength at which")]
    assert bool(warned) == (report["strength"]["value"] == 0)
    loop.run.set_fact("strength", {"value": 0.0, "words": "Keep the original (strength 0): so.", "points": []})
    report = write_report(loop.run)
    assert any(s.endswith("LoRA helps. Keep the original (strength 0): so.") for s in report["distrust"])


def test_missing_or_unreadable_image_is_named(tmp_path):
    loop = make_loop(tmp_path / "run", settings=SETTINGS)
    loop.go()
    lost = loop.run.image_path("strength_0.50", 0)
    lost.write_bytes(b"no picture")
    with pytest.raises(
        UserError, match="picture of the strength sweep .* cannot be read .*start again in a new output folder"
    ):
        write_report(loop.run)
    lost.unlink()
    with pytest.raises(UserError, match="is recorded but missing. Put the file back"):
        write_report(loop.run)
