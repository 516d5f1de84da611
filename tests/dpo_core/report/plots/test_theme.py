"""Tests that every colour can be read on its ground, and that a theme ends where it should."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from PIL import ImageColor

from dreambooth_dpo.dpo_core.report.plots.cloud import scores_figure
from dreambooth_dpo.dpo_core.report.plots.figure import figure_image
from dreambooth_dpo.dpo_core.report.plots.grids import over_prompts, references_strip
from dreambooth_dpo.dpo_core.report.plots.theme import DARK, LIGHT, THEMES, colours, theme


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    parts = [value / 255 for value in ImageColor.getrgb(colour)]
    red, green, blue = (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_by_hand() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", THEMES)
def test_text_and_lines_stand_out_from_the_ground(name: str) -> None:
    """WCAG: 4.5 for text, 3 for marks; Okabe and Ito's orange on white is lighter and only fills or is a wide line."""
    found = asdict(THEMES[name])
    assert min(contrast(found[text], found["paper"]) for text in ("ink", "faint")) > 4.5
    marks = [
        mark
        for mark in ("blue", "vermillion", "green", "purple", "grey", "orange")
        if name == "dark" or mark != "orange"
    ]
    assert min(contrast(found[mark], found["paper"]) for mark in marks) > 3
    assert min(contrast(found[mark], found["inside"]) for mark in ("blue", "vermillion", "grey")) > 3


def test_a_theme_ends_with_its_block_and_with_an_error() -> None:
    with pytest.raises(RuntimeError), theme("dark"):
        assert colours() is DARK
        raise RuntimeError
    assert colours() is LIGHT


def test_a_dark_plot_is_dark_with_light_text() -> None:
    values = np.linspace(0, 1, 12)
    found = {}
    for name in THEMES:
        with theme(name):
            found[name] = np.asarray(figure_image(scores_figure(values, values, np.arange(12) // 4)))
            assert np.asarray(references_strip([np.zeros((64, 64, 3), np.uint8)]))[0, 0].tolist() == list(
                ImageColor.getrgb(THEMES[name].paper)
            )
    for name, pixels in found.items():
        assert (pixels[0, 0] == ImageColor.getrgb(THEMES[name].paper)).all()
        ink = (pixels == ImageColor.getrgb(THEMES[name].ink)).all(axis=-1)
        assert ink[-60:].any(), "the legend below the axes has the text's colour"
    assert found["dark"].mean() < 70 and found["light"].mean() > 200


def test_the_first_pairs_show_as_many_prompts_as_possible() -> None:
    """Five prompts of 3, 1, 2, 1, 1 pairs: the first of each, spread over the list (0, 4, 2, 1, 3), then the rest."""
    prompt_of = [0, 0, 0, 1, 2, 2, 3, 4]
    order = over_prompts(prompt_of)
    assert [prompt_of[i] for i in order] == [0, 4, 2, 1, 3, 0, 2, 0]
    assert order[5:] == [1, 5, 2] and sorted(order) == list(range(8))
    assert over_prompts([]) == [] and over_prompts([7, 7]) == [0, 1]
