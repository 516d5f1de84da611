"""The toybox world: the contents of an image, and the renderer.

An image is 64x64 RGB: one subject (class noun, body colour, belly colour, optional hat) in front of one background.
Everything that captions do not name (position, size, texture phase, shade) is drawn from a seed, so that a scene and a
seed determine the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SIZE = 64
CLASSES = ("robot", "bear", "bottle")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 36, 36),
    "yellow": (248, 218, 40),
    "green": (30, 190, 70),
    "cyan": (50, 215, 225),
    "blue": (40, 66, 225),
    "pink": (240, 80, 195),
}
HAT_COLOURS = ("red", "yellow", "blue", "pink")
BACKGROUNDS = ("grass", "brick", "night", "snow", "sand", "water", "wood", "stripes", "checker", "sunset")
INK = (28, 24, 30)


@dataclass(frozen=True)
class Scene:
    """What a caption can say about an image; `hat` is None for a bare head."""

    noun: str
    body: str
    belly: str
    background: str
    hat: str | None = None

    def __post_init__(self) -> None:
        for value, allowed, name in (
            (self.noun, CLASSES, "noun"),
            (self.body, tuple(COLOURS), "body"),
            (self.belly, tuple(COLOURS), "belly"),
            (self.background, BACKGROUNDS, "background"),
            (self.hat, (None, *HAT_COLOURS), "hat"),
        ):
            if value not in allowed:
                raise ValueError(f"{name} {value!r} is not in the toybox world; choose one of {allowed}")

    def with_(self, **changes: str | None) -> Scene:
        return replace(self, **changes)


@dataclass(frozen=True)
class Placement:
    """Centre of the subject and its half height. Unit: pixels."""

    x: float
    y: float
    scale: float


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene with uniform attributes; half of the scenes have a hat.

    Body and belly differ in colour, and so do hat and body.
    """
    body, belly = rng.choice(list(COLOURS), size=2, replace=False)
    hat = str(rng.choice([c for c in HAT_COLOURS if c != body])) if rng.random() < 0.5 else None
    return Scene(str(rng.choice(CLASSES)), str(body), str(belly), str(rng.choice(BACKGROUNDS)), hat)


def random_placement(rng: np.random.Generator) -> Placement:
    return Placement(
        x=SIZE / 2 + rng.uniform(-5, 5), y=SIZE / 2 + 6 + rng.uniform(-3, 3), scale=rng.uniform(19.0, 23.0)
    )


PLACEMENT_SPREAD = np.asarray([10.0, 6.0, 4.0]) / np.sqrt(12)
"""Standard deviations of x, y and scale of `random_placement`: widths of its ranges / sqrt 12. Unit: pixels."""


_YY, _XX = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5


def _box(cx: float, cy: float, hw: float, hh: float) -> np.ndarray:
    return (np.abs(_XX - cx) <= hw) & (np.abs(_YY - cy) <= hh)


def _ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    return ((_XX - cx) / rx) ** 2 + ((_YY - cy) / ry) ** 2 <= 1.0


def part_masks(noun: str, place: Placement, with_hat: bool) -> dict[str, np.ndarray]:
    """Boolean [64, 64] masks of body, belly, ink (eyes, lines) and hat, which do not overlap.

    Without a hat, the hat's mask shows where it would be and covers nothing of the body.
    """
    x, y, s = place.x, place.y, place.scale
    if noun == "robot":
        body = _box(x, y + 0.34 * s, 0.62 * s, 0.58 * s) | _box(x, y - 0.52 * s, 0.46 * s, 0.32 * s)
        belly = _box(x, y + 0.36 * s, 0.36 * s, 0.34 * s)
        ink = _box(x - 0.2 * s, y - 0.52 * s, 0.09 * s, 0.12 * s) | _box(x + 0.2 * s, y - 0.52 * s, 0.09 * s, 0.12 * s)
        top = y - 0.84 * s
    elif noun == "bear":
        body = _ellipse(x, y + 0.3 * s, 0.7 * s, 0.64 * s) | _ellipse(x, y - 0.5 * s, 0.46 * s, 0.42 * s)
        body |= _ellipse(x - 0.42 * s, y - 0.78 * s, 0.19 * s, 0.19 * s)
        body |= _ellipse(x + 0.42 * s, y - 0.78 * s, 0.19 * s, 0.19 * s)
        belly = _ellipse(x, y + 0.34 * s, 0.42 * s, 0.4 * s)
        ink = _ellipse(x - 0.16 * s, y - 0.56 * s, 0.08 * s, 0.09 * s) | _ellipse(
            x + 0.16 * s, y - 0.56 * s, 0.08 * s, 0.09 * s
        )
        ink |= _ellipse(x, y - 0.34 * s, 0.12 * s, 0.08 * s)
        top = y - 0.86 * s
    elif noun == "bottle":
        body = _box(x, y + 0.32 * s, 0.5 * s, 0.62 * s) | _ellipse(x, y - 0.3 * s, 0.5 * s, 0.3 * s)
        body |= _box(x, y - 0.6 * s, 0.2 * s, 0.26 * s)
        belly = _box(x, y + 0.34 * s, 0.5 * s, 0.32 * s)
        ink = _box(x, y - 0.54 * s, 0.2 * s, 0.06 * s)
        top = y - 0.84 * s
    else:
        raise ValueError(f"class noun {noun!r} is not in the toybox world; choose one of {CLASSES}")
    hat = _box(x, top - 0.2 * s, 0.34 * s, 0.26 * s) | _box(x, top + 0.02 * s, 0.56 * s, 0.1 * s)
    if with_hat:
        body, belly, ink = body & ~hat, belly & ~hat, ink & ~hat
    return {"body": body & ~belly & ~ink, "belly": belly & ~ink, "ink": ink, "hat": hat}


def subject_mask(scene: Scene, seed: int) -> np.ndarray:
    """uint8 [64, 64], 255 where `render(scene, seed)` shows the subject, hat included."""
    masks = part_masks(scene.noun, random_placement(np.random.default_rng(seed)), with_hat=scene.hat is not None)
    worn = masks["hat"] if scene.hat else np.zeros((SIZE, SIZE), bool)
    return np.where(masks["body"] | masks["belly"] | masks["ink"] | worn, 255, 0).astype(np.uint8)


def _noise(rng: np.random.Generator, amount: float) -> np.ndarray:
    return rng.normal(0.0, amount, (SIZE, SIZE, 1)).astype(np.float32)


def _solid(colour: tuple[int, int, int]) -> np.ndarray:
    return np.tile(np.asarray(colour, np.float32), (SIZE, SIZE, 1))


def _mix(mask: np.ndarray, yes: tuple[int, int, int], no: tuple[int, int, int]) -> np.ndarray:
    return np.where(mask[..., None], np.asarray(yes, np.float32), np.asarray(no, np.float32))


def draw_background(name: str, rng: np.random.Generator) -> np.ndarray:
    """A 64x64x3 float32 image (0..255) of the named background; `rng` determines its phase and shade."""
    px, py = rng.uniform(0, 64, 2)
    x, y = _XX + px, _YY + py
    if name == "grass":
        image = _mix(np.sin(x * 1.1 + 3 * np.sin(y * 0.25)) > 0.2, (96, 142, 40), (66, 112, 28))
    elif name == "brick":
        row = np.floor(y / 8)
        mortar = (y % 8 < 1.6) | ((x + 8 * (row % 2)) % 16 < 1.6)
        image = _mix(mortar, (196, 178, 164), (150, 72, 56))
    elif name == "night":
        image = _solid((20, 20, 54))
        for sx, sy in rng.uniform(1, 63, (22, 2)):
            image[(np.abs(_XX - sx) < 1.1) & (np.abs(_YY - sy) < 1.1)] = (235, 232, 190)
    elif name == "snow":
        image = _solid((236, 240, 246)) - 14 * (np.sin(y * 0.35 + 1.5 * np.sin(x * 0.12)) > 0.55)[..., None]
    elif name == "sand":
        image = _solid((214, 186, 134)) - 20 * (np.sin(y * 0.8 + 2 * np.sin(x * 0.1)) > 0.6)[..., None]
    elif name == "water":
        image = _mix(np.sin(y * 0.75 + 1.6 * np.sin(x * 0.3)) > 0.45, (120, 176, 206), (44, 108, 156))
    elif name == "wood":
        image = _mix(np.sin(y * 0.55 + 0.8 * np.sin(x * 0.15)) > 0.5, (104, 66, 34), (134, 92, 52))
    elif name == "stripes":
        image = _mix(x % 12 < 6, (236, 236, 232), (110, 110, 116))
    elif name == "checker":
        image = _mix((np.floor(x / 8) + np.floor(y / 8)) % 2 < 1, (60, 60, 62), (162, 162, 164))
    elif name == "sunset":
        t = np.clip((_YY / SIZE)[..., None] + rng.uniform(-0.1, 0.1), 0, 1)
        image = (1 - t) * np.asarray((112, 60, 122), np.float32) + t * np.asarray((252, 158, 92), np.float32)
    else:
        raise ValueError(f"background {name!r} is not in the toybox world; choose one of {BACKGROUNDS}")
    return image * rng.uniform(0.96, 1.04) + _noise(rng, 3.0)


def render(scene: Scene, seed: int, place: Placement | None = None) -> np.ndarray:
    """Draw a scene: uint8 [64, 64, 3]. The same scene, seed and placement give the same pixels."""
    rng = np.random.default_rng(seed)
    drawn = random_placement(rng)
    place = place or drawn
    image = draw_background(scene.background, rng)
    masks = part_masks(scene.noun, place, with_hat=scene.hat is not None)
    shade = rng.uniform(0.94, 1.04)
    image[masks["body"]] = np.asarray(COLOURS[scene.body], np.float32) * shade
    image[masks["belly"]] = np.asarray(COLOURS[scene.belly], np.float32) * shade
    image[masks["ink"]] = INK
    if scene.hat:
        image[masks["hat"]] = np.asarray(COLOURS[scene.hat], np.float32) * shade
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
