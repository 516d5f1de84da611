"""Tests plots and image grids: what is drawn, and that sparse or constant data is drawn without error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.dpo_core.report.plots.cloud import cloud_figure
from dreambooth_dpo.dpo_core.report.plots.figure import figure_image
from dreambooth_dpo.dpo_core.report.plots.grids import (
    PairPicture,
    before_after_grid,
    evenly,
    fit,
    font,
    pairs_grid,
    references_strip,
    wrap,
)
from dreambooth_dpo.dpo_core.report.plots.path import PathPoint, path_figure
from dreambooth_dpo.dpo_core.report.plots.training import running_mean, training_figure
from dreambooth_dpo.dpo_core.settings import PairSettings

RECORD = {"loss": 0.6, "accuracy": 0.7, "margin": 0.001, "winner_error": 0.002, "loser_error": 0.004}


def arrows(figure) -> int:
    return sum(1 for t in figure.axes[0].texts if getattr(t, "arrow_patch", None) is not None)


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5, 0.5]])
def test_cloud_of_sparse_or_constant_data_is_drawn(scores):
    image = np.asarray(figure_image(cloud_figure(np.asarray(scores), np.asarray(scores), [], PairSettings())))
    assert image.std() > 0 and image.shape[1] == 1024


def test_cloud_draws_the_longest_arrows_only():
    pairs = [Pair(i, i + 1, 0.1 * i, 0.1) for i in range(9)]
    values = np.arange(10.0)
    assert arrows(cloud_figure(values, values, pairs, PairSettings())) == 9
    assert arrows(cloud_figure(values, values, pairs, PairSettings(), most_arrows=4)) == 4


def test_cloud_draws_the_window_with_the_margin_as_hole():
    from matplotlib.patches import Wedge

    figure = cloud_figure(
        np.arange(4.0), np.arange(4.0), [], PairSettings(rule="angle_window", angle_low=10, angle_high=55, margin=0.4)
    )
    wedge = next(p for p in figure.axes[0].patches if isinstance(p, Wedge))
    assert (wedge.theta1, wedge.theta2) == (10, 55)
    assert wedge.r - wedge.width == pytest.approx(0.4)
    assert figure.axes[0].get_aspect() == 1.0, "angles are true only if both axes have one scale"


@pytest.mark.parametrize(
    ("changes", "used", "drawn"),
    [
        ({"rule": "angle_window", "window": "auto"}, (10.0, 80.0), (10.0, 80.0)),
        ({"rule": "angle_window"}, (30.0, 60.0), (30.0, 60.0)),
        ({"rule": "angle_window", "window": "auto"}, None, None),
        *(({"rule": rule}, used, None) for rule in ("pareto", "random") for used in (None, (10.0, 80.0))),
    ],
)
def test_cloud_draws_the_window_that_was_used_and_none_for_other_rules(changes, used, drawn):
    from matplotlib.patches import Wedge

    figure = cloud_figure(np.arange(4.0), np.arange(4.0), [Pair(1, 0, 1, 1)], PairSettings(**changes), window=used)
    assert [(p.theta1, p.theta2) for p in figure.axes[0].patches if isinstance(p, Wedge)] == ([drawn] if drawn else [])


def test_cloud_shows_the_direction_in_which_the_reward_rises():
    """weighted_sum with w 0.5: 45 degrees."""
    for rule, shown in (("weighted_sum", ["reward rises (45°)", "equal reward"]), ("angle_window", []), ("random", [])):
        figure = cloud_figure(np.arange(4.0), np.arange(4.0), [], PairSettings(rule=rule))
        labels = figure.axes[0].get_legend_handles_labels()[1]
        assert [name for name in labels if "reward" in name] == shown


def test_path_labels_curve_steps_and_rounds():
    curve = [{"step": s, "fidelity": 0.1 + s / 1000, "alignment": 0.6 - s / 2000} for s in (0, 60, 240)]
    points = [PathPoint("0", 0.3, 0.5, (0.28, 0.32), (0.45, 0.55)), PathPoint("1", 0.35, 0.52, (-np.inf, np.inf), None)]
    figure = path_figure(points, curve)
    assert {t.get_text() for t in figure.axes[0].texts} == {"0", "1", "60", "240"}
    assert np.asarray(figure_image(figure)).std() > 0


def test_path_of_a_single_point_is_drawn():
    assert np.asarray(figure_image(path_figure([PathPoint("0", 0.3, 0.5)]))).std() > 0


@pytest.mark.parametrize("rounds", [[], [[RECORD]], [[RECORD] * 3, [], [RECORD] * 2], [[RECORD] * 4] * 15])
def test_training_of_few_or_many_records_is_drawn(rounds):
    assert np.asarray(figure_image(training_figure(rounds, 0.01, 0.04))).std() > 0


def test_collapse_line_is_shown_only_near_the_curves():
    def lines(error: float) -> list[float]:
        ax = training_figure([[{**RECORD, "winner_error": error}] * 5], 0.01, 0.04).axes[3]
        flat = [
            line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1 and len(line.get_xdata()) == 2
        ]
        return [y for y in flat if ax.get_ylim()[0] <= y <= ax.get_ylim()[1]]

    assert 0.01 in lines(0.001) and 0.04 not in lines(0.001)
    assert {0.01, 0.04} <= set(lines(0.05))


def test_running_mean_is_over_the_last_twenty():
    """Of 0..24: at index 2 (0+1+2)/3 = 1; at index 24 the mean of 5..24 = 14.5."""
    found = running_mean(np.arange(25.0))
    assert found[2] == pytest.approx(1.0) and found[24] == pytest.approx(14.5)


# --- grids ---


@given(st.integers(0, 200), st.integers(1, 20))
def test_evenly_spreads_from_first_to_last(count, most):
    chosen = evenly(count, most)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(count, most)
    if count and most > 1:
        assert chosen[0] == 0 and chosen[-1] == count - 1


def test_small_images_are_enlarged_by_whole_factors():
    """2x1 pixels in a cell of 7: factor 3, each pixel a 3x3 block."""
    pixels = np.asarray([[[255, 0, 0], [0, 0, 255]]], np.uint8)
    assert np.array_equal(np.asarray(fit(pixels, 7)), pixels.repeat(3, 0).repeat(3, 1))


def test_large_images_keep_their_aspect():
    assert fit(np.zeros((100, 300, 3), np.uint8), 60).size == (60, 20)


@settings(max_examples=30)
@given(st.text(max_size=80), st.integers(30, 200), st.integers(1, 4))
def test_wrapped_lines_fit(text, width, lines):
    letters = font(16)
    found = wrap(text, width, lines, letters)
    assert len(found) <= lines
    assert all(letters.getlength(line) <= width for line in found)


def test_wrap_marks_a_cut_with_an_ellipsis():
    assert wrap("a photo of a robot", 1000, 1, font(16)) == ["a photo of a robot"]
    assert wrap("a photo of a robot", 90, 1, font(16))[0].endswith("…")


def test_before_after_grid_puts_the_two_side_by_side():
    """One prompt, one seed: red before is left of blue after, both 128 wide."""
    red, blue = np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 64, 64, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    pixels = np.asarray(before_after_grid([red], [blue], ["a sks robot"])).astype(int)
    is_red, is_blue = (pixels == [255, 0, 0]).all(-1), (pixels == [0, 0, 255]).all(-1)
    assert is_red.sum() == is_blue.sum() == 128 * 128
    assert np.nonzero(is_red)[1].max() < np.nonzero(is_blue)[1].min()


def test_grids_take_uneven_seeds_and_empty_prompts():
    picture = np.zeros((2, 64, 64, 3), np.uint8)
    assert before_after_grid([picture, picture[:1]], [picture, picture[:1]], ["", "x" * 200]).width > 256
    pair = PairPicture("", picture[0], picture[1], (0.1, 0.2), (0.0, 0.1), 45.0, 1.0)
    assert pairs_grid([pair]).width > 256
    assert references_strip([picture[0], np.zeros((64, 32, 3), np.uint8)]).height == 144
