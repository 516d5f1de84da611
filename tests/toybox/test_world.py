from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth_dpo.toybox.world import (
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    HAT_COLOURS,
    INK,
    SIZE,
    Placement,
    Scene,
    draw_background,
    part_masks,
    random_placement,
    random_scene,
    render,
    subject_mask,
)

SEEDS = st.integers(0, 2**31 - 1)
SCENES = st.builds(
    Scene,
    st.sampled_from(CLASSES),
    st.sampled_from(list(COLOURS)),
    st.sampled_from(list(COLOURS)),
    st.sampled_from(BACKGROUNDS),
    st.sampled_from((None, *HAT_COLOURS)),
)
PLACES = st.builds(Placement, st.floats(27, 37), st.floats(35, 41), st.floats(19, 23))


@given(SCENES, SEEDS)
@settings(max_examples=40, deadline=None)
def test_same_scene_and_seed_give_the_same_image(scene, seed):
    first = render(scene, seed)
    assert first.dtype == np.uint8 and first.shape == (SIZE, SIZE, 3)
    assert np.array_equal(first, render(scene, seed))
    assert not np.array_equal(first, render(scene, seed + 1))


@given(st.sampled_from(CLASSES), PLACES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_parts_do_not_overlap_and_are_not_empty(noun, place, with_hat):
    masks = part_masks(noun, place, with_hat)
    drawn = [masks["body"], masks["belly"], masks["ink"], *([masks["hat"]] if with_hat else [])]
    assert np.sum(drawn, axis=0).max() == 1
    assert min(m.sum() for m in drawn) >= 4
    assert masks["hat"].any()


@given(st.sampled_from(CLASSES), PLACES)
@settings(max_examples=40, deadline=None)
def test_the_subject_leaves_the_border_free(noun, place):
    """The oracle reads the background in columns 0..8 and 55..63 and rows 0..4."""
    covered = np.any(list(part_masks(noun, place, with_hat=True).values()), axis=0)
    assert not covered[:, :9].any() and not covered[:, 55:].any() and not covered[:5].any()


@given(st.sampled_from(CLASSES), PLACES)
@settings(max_examples=30, deadline=None)
def test_hat_covers_only_its_own_pixels(noun, place):
    bare, worn = part_masks(noun, place, with_hat=False), part_masks(noun, place, with_hat=True)
    for name in ("body", "belly", "ink"):
        assert np.array_equal(worn[name], bare[name] & ~bare["hat"])


def test_parts_have_their_colours_up_to_one_shade():
    place = Placement(32.0, 38.0, 21.0)
    image = render(Scene("bear", "red", "cyan", "snow", "yellow"), 3, place)
    masks = part_masks("bear", place, with_hat=True)
    shades = {}
    for part, colour in (("body", "red"), ("belly", "cyan"), ("hat", "yellow")):
        seen = np.unique(image[masks[part]], axis=0)
        assert len(seen) == 1
        shades[part] = float(seen[0].astype(float) @ COLOURS[colour]) / float(np.square(COLOURS[colour]).sum())
    assert all(0.93 < s < 1.05 for s in shades.values())


@given(st.sampled_from(CLASSES), st.sampled_from((None, *HAT_COLOURS)), SEEDS)
@settings(max_examples=40, deadline=None)
def test_subject_mask_is_unchanged_by_another_background(noun, hat, seed):
    """Grass and snow use the same random draws and share no colour.

    So the pixels that are equal in both images are the subject, hat and ink included.
    """
    scene = Scene(noun, "cyan", "pink", "grass", hat)
    mask = subject_mask(scene, seed)
    assert mask.dtype == np.uint8 and mask.shape == (SIZE, SIZE) and set(np.unique(mask)) == {0, 255}
    same = (render(scene, seed) == render(scene.with_(background="snow"), seed)).all(axis=2)
    np.testing.assert_array_equal(mask == 255, same)


@given(st.sampled_from(CLASSES), st.booleans(), SEEDS)
@settings(max_examples=40, deadline=None)
def test_subject_mask_is_the_pixels_changed_by_other_colours_plus_ink(noun, with_hat, seed):
    first = Scene(noun, "red", "green", "water", "yellow" if with_hat else None)
    other = first.with_(body="cyan", belly="pink", hat="blue" if with_hat else None)
    pictures = render(first, seed), render(other, seed)
    changed, ink = (pictures[0] != pictures[1]).any(axis=2), (pictures[0] == INK).all(axis=2)
    np.testing.assert_array_equal(subject_mask(first, seed) == 255, changed | ink)
    np.testing.assert_array_equal(subject_mask(first, seed), subject_mask(other, seed))
    bare = subject_mask(first.with_(hat=None), seed)
    assert (bare <= subject_mask(first, seed)).all() and (bare != subject_mask(first, seed)).any() == with_hat


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_random_scenes_never_hide_the_belly_or_the_hat(seed):
    rng = np.random.default_rng(seed)
    scene, place = random_scene(rng), random_placement(rng)
    assert scene.body != scene.belly and scene.body != scene.hat
    assert 27 <= place.x <= 37 and 35 <= place.y <= 41 and 19 <= place.scale <= 23


@pytest.mark.parametrize(
    "field, value", [("noun", "whale"), ("body", "beige"), ("belly", "beige"), ("background", "moon"), ("hat", "green")]
)
def test_unknown_scene_attributes_are_refused(field, value):
    with pytest.raises(ValueError, match=value):
        Scene("robot", "red", "blue", "snow").with_(**{field: value})


def test_unknown_names_are_refused_by_the_drawing_functions():
    with pytest.raises(ValueError, match="whale"):
        part_masks("whale", Placement(32, 38, 21), with_hat=False)
    with pytest.raises(ValueError, match="moon"):
        draw_background("moon", np.random.default_rng(0))
