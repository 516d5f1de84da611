from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth_dpo.toybox.background_reading import background_distances
from dreambooth_dpo.toybox.oracle import UNCLEAR, Oracle, Reading, Verdict, colour_map
from dreambooth_dpo.toybox.world import (
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    HAT_COLOURS,
    Placement,
    Scene,
    part_masks,
    random_scene,
    render,
)

PARTS = ("background", "body", "belly", "hat")


def _render_all(scenes: list[Scene], seed: int) -> np.ndarray:
    return np.stack([render(s, seed + i) for i, s in enumerate(scenes)])


def _every_attribute() -> list[Scene]:
    """Each noun on each background with each body colour, with and without a hat: 180 x 2 scenes.

    Belly and hat colours take turns.
    """
    scenes = []
    for i, (noun, background, body) in enumerate(itertools.product(CLASSES, BACKGROUNDS, COLOURS)):
        bellies = [c for c in COLOURS if c != body]
        hats = [None, *(c for c in HAT_COLOURS if c != body)]
        scenes += [
            Scene(noun, body, bellies[(i + j) % 5], background, hats[(i // 6 + i + j) % len(hats)]) for j in range(2)
        ]
    return scenes


@pytest.fixture(scope="module")
def clean() -> tuple[list[Scene], np.ndarray, Verdict]:
    scenes = _every_attribute()
    images = _render_all(scenes, 40_000)
    return scenes, images, Oracle().judge(images, scenes)


def _rates(scenes: list[Scene], right: np.ndarray, attribute: str) -> dict:
    values = {getattr(s, attribute) for s in scenes}
    return {v: right[[getattr(s, attribute) == v for s in scenes]].mean() for v in values}


@pytest.mark.parametrize("by", ["noun", "background", "body", "belly", "hat"])
@pytest.mark.parametrize("part", PARTS)
def test_clean_renders_are_right_for_every_attribute_value(clean, part, by):
    scenes, _, verdict = clean
    rates = _rates(scenes, verdict.parts[part], by)
    assert len(rates) == {"noun": 3, "background": 10, "body": 6, "belly": 6, "hat": 5}[by]
    assert min(rates.values()) >= 0.98, rates


def _changed(scene: Scene, part: str, rng: np.random.Generator) -> Scene:
    """The scene with another value of one part, which never hides another part."""
    values = {"background": BACKGROUNDS, "body": tuple(COLOURS), "belly": tuple(COLOURS), "hat": (None, *HAT_COLOURS)}[
        part
    ]
    taken = {
        getattr(scene, part),
        *({scene.body, scene.belly, scene.hat} if part in ("body", "belly") else {scene.body}),
    }
    free = [v for v in values if v == getattr(scene, part) or v not in taken]
    return scene.with_(**{part: free[(free.index(getattr(scene, part)) + int(rng.integers(1, len(free)))) % len(free)]})


@pytest.mark.parametrize("part", PARTS)
def test_changed_attribute_is_wrong_and_the_others_stay_right(part):
    rng = np.random.default_rng(77)
    expected = [random_scene(rng) for _ in range(120)]
    shown = [_changed(s, part, rng) for s in expected]
    assert all(getattr(a, part) != getattr(b, part) for a, b in zip(expected, shown, strict=True))
    verdict = Oracle().judge(_render_all(shown, 60_000), expected)
    assert (~verdict.parts[part]).mean() >= 0.98
    assert (~verdict.all_right).mean() >= 0.98
    for other in set(PARTS) - {part}:
        assert verdict.parts[other].mean() >= 0.98, other


@pytest.mark.parametrize("hat", HAT_COLOURS)
def test_a_missing_hat_and_an_unwanted_hat_are_wrong(hat):
    bodies = [c for c in COLOURS if c != hat]
    bare = [
        Scene(noun, body, bodies[i - 1], b)
        for noun in CLASSES
        for b in BACKGROUNDS[::4]
        for i, body in enumerate(bodies)
    ]
    worn = [s.with_(hat=hat) for s in bare]
    oracle = Oracle()
    assert (~oracle.judge(_render_all(bare, 100), worn).hat).mean() >= 0.98
    assert (~oracle.judge(_render_all(worn, 100), bare).hat).mean() >= 0.98


def _blurred(images: np.ndarray) -> np.ndarray:
    """3x3 mean plus grey noise of 6: about what a small VAE loses."""
    wide = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    mean = sum(wide[:, i : i + 64, j : j + 64] for i in range(3) for j in range(3)) / 9
    return np.clip(mean + np.random.default_rng(0).normal(0, 6, mean.shape), 0, 255).astype(np.uint8)


def test_blur_and_noise_do_not_change_the_reading(clean):
    scenes, images, _ = clean
    verdict = Oracle().judge(_blurred(images[::3]), scenes[::3])
    for part in PARTS:
        assert verdict.parts[part].mean() >= 0.95, part


def test_noise_and_plain_images_are_not_all_right():
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (40, 64, 64, 3)).astype(np.uint8)
    plain = np.stack([np.full((64, 64, 3), c, np.uint8) for c in [*COLOURS.values(), *rng.integers(0, 256, (40, 3))]])
    images = np.concatenate([noise, plain])
    readings = Oracle().read(images, ["robot", "bear"] * (len(images) // 2))
    assert all(None in (r.background, r.body, r.belly) for r in readings)
    assert all(r.background is None for r in readings[:40])


def test_background_alone_shows_no_subject():
    """Body and belly are painted over with the background from the left of the same image."""
    images = _render_all([Scene("robot", "red", "blue", b) for b in BACKGROUNDS], 5)
    images[:, :, 9:55] = np.tile(images[:, :, :9], (1, 1, 6, 1))[:, :, :46]
    for reading, name in zip(Oracle().read(images, ["robot"] * 10), BACKGROUNDS, strict=True):
        assert reading.background in (name, None)
        assert (reading.body, reading.belly, reading.hat) == (None, None, None)


def test_two_backgrounds_side_by_side_are_read_as_none():
    one, two = (render(Scene("bear", "red", "blue", b), 4, Placement(32, 38, 21)) for b in ("snow", "water"))
    both = np.concatenate([one[:, :32], two[:, 32:]], axis=1)
    assert Oracle().read(both[None], ["bear"]) == [Reading(None, "red", "blue", None)]


@given(
    st.floats(27, 37), st.floats(35, 41), st.floats(19, 23), st.sampled_from(CLASSES), st.sampled_from((None, "yellow"))
)
@settings(max_examples=30, deadline=None)
def test_subject_is_found_at_any_placement(x, y, scale, noun, hat):
    image = render(Scene(noun, "green", "pink", "wood", hat), 8, Placement(x, y, scale))
    assert Oracle().read(image[None], [noun]) == [Reading("wood", "green", "pink", hat)]


@pytest.mark.parametrize("kept, hat", [(0.9, "blue"), (0.4, UNCLEAR), (0.1, None)])
def test_partly_visible_hat_is_unclear(kept, hat):
    """The hat's pixels are kept at random, the others painted white.

    90 % is a hat, 40 % neither hat nor bare head, 10 % a bare head.
    """
    place = Placement(32, 38, 21)
    image = render(Scene("robot", "red", "green", "snow", "blue"), 2, place)
    gone = part_masks("robot", place, True)["hat"] & (np.random.default_rng(3).random((64, 64)) > kept)
    image[gone] = 240
    scene = Scene("robot", "red", "green", "snow", hat if hat != UNCLEAR else "blue")
    assert Oracle().read(image[None], ["robot"])[0].hat == hat
    assert Oracle().judge(image[None], [scene]).hat[0] == (hat != UNCLEAR)


def test_colours_of_pixels():
    """Index in COLOURS; ink, grey, black and the tones of brick and water count as no colour."""
    pixels = [
        *COLOURS.values(),
        (28, 24, 30),
        (128, 128, 128),
        (0, 0, 0),
        (150, 72, 56),
        (44, 108, 156),
        (255, 255, 255),
    ]
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, 0, : len(pixels)] = pixels
    assert colour_map(image)[0, : len(pixels)].tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1, -1, -1, -1]


def test_expected_colours_do_not_change_the_reading(clean):
    """judge() is read() plus a comparison, so a verdict follows from the readings alone."""
    scenes, images, verdict = clean
    part = slice(0, 60)
    readings = Oracle().read(images[part], [s.noun for s in scenes[part]])
    for name in PARTS:
        compared = [getattr(r, name) == getattr(s, name) for r, s in zip(readings, scenes[part], strict=True)]
        assert compared == verdict.parts[name][part].tolist()


def test_all_right_is_every_part_right():
    combinations = np.array(list(itertools.product([False, True], repeat=4)))
    verdict = Verdict(*combinations.T)
    assert verdict.all_right.tolist() == [False] * 15 + [True]
    assert tuple(verdict.parts) == PARTS


def test_no_images_and_mixed_nouns():
    oracle = Oracle()
    assert oracle.judge(np.zeros((0, 64, 64, 3), np.uint8), []).all_right.shape == (0,)
    scenes = [Scene(noun, "red", "cyan", "night", "pink") for noun in (*CLASSES, *CLASSES[::-1])]
    assert oracle.judge(_render_all(scenes, 12), scenes).all_right.all()


def test_wrong_input_is_refused():
    oracle, image = Oracle(), np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="float32"):
        oracle.read(image.astype(np.float32), ["bear"])
    with pytest.raises(ValueError, match="32, 32"):
        oracle.read(image[:, :32, :32], ["bear"])
    with pytest.raises(ValueError, match="1 images but 2"):
        oracle.read(image, ["bear", "bear"])
    with pytest.raises(ValueError, match="whale"):
        oracle.read(image, ["whale"])


def test_backgrounds_are_separated():
    """No drawing of a background is within the limit of another one and nearer to it than to its own."""
    images = _render_all([Scene("bottle", "red", "blue", b) for b in BACKGROUNDS for _ in range(6)], 900)
    distances = background_distances(images)
    assert (distances.argmin(1) == np.repeat(np.arange(10), 6)).all()


def test_128_images_take_less_than_two_seconds(clean):
    scenes, images, _ = clean
    started = time.process_time()
    Oracle().judge(images[:128], scenes[:128])
    assert time.process_time() - started < 2
