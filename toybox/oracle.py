"""The toybox's oracle: it reads from the pixels what an image shows.

Version 1, frozen. Every number below was chosen on clean renders, on VAE round trips of renders (some with noise on
their latents), and on images that must fail (noise, plain colours, halves of two renders), never on sampled images.
Changing any of them makes another oracle: increase ORACLE_VERSION.

The oracle reads an image first and compares with the expected scene afterwards. From the expected scene the reading
uses only the class noun, which selects the templates. The shape itself is not judged: a robot painted in a bear's
colours can pass as the bear.

Background: statistics of three regions that no subject reaches (columns 0..8, columns 55..63, rows 0..4): mean and
standard deviation of red, green and blue, and mean absolute difference of grey values 4 pixels and 1 pixel apart to the
right and downwards. Each is compared with its mean over 64 drawings of each background (32, and the same blurred) in
units of its standard deviation there, which is at least FLOORS. A region's distance is the root mean square over its
statistics. The background is the one whose worst region is nearest, or None beyond BACKGROUND_LIMIT (2.5).

Subject: every pixel takes the nearest palette colour, or none when that is COLOUR_LIMIT (RGB distance 75) or more away,
or when ink or one of BACKGROUND_TONES is nearer. The placement is that of the grid (GRID_*) with the highest score:
share of the body in one colour + share of the belly in another - half the share of the body's colour in the 2 pixels
around the subject. There, with masks eroded by one pixel: the body has that colour if it fills FILLED (0.6) of the
body, else None; the same for the belly. The hat (the part of it outside a bare head) has the colour that fills
HAT_FILLED (0.5) of it; it is None, a bare head, when no colour fills HAT_TRACE (0.3); in between it is UNCLEAR, which
is never right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .background_reading import background_distances
from .world import BACKGROUNDS, CLASSES, COLOURS, INK, SIZE, Placement, Scene, part_masks

ORACLE_VERSION = 1

COLOUR_LIMIT = 75.0
FILLED = 0.6
HAT_FILLED = 0.5
HAT_TRACE = 0.3
UNCLEAR = "unclear"
BACKGROUND_LIMIT = 2.5
# Slightly wider than the range of random_placement: x 27..37, y 35..41, scale 19..23.
GRID_X = np.arange(26.0, 39.0)
GRID_Y = np.arange(33.0, 44.0)
GRID_SCALE = np.arange(18.0, 25.0)

# Background colours that could be mistaken for a palette colour: such a pixel is not counted as subject.
BACKGROUND_TONES = (
    (150, 72, 56),
    (252, 158, 92),
    (112, 60, 122),
    (96, 142, 40),
    (214, 186, 134),
    (44, 108, 156),
    (120, 176, 206),
    (20, 20, 54),
)

_NAMES = tuple(COLOURS)
_CHUNK = 128


@dataclass(frozen=True)
class Reading:
    """What one image shows. None: an unknown background or colour; for `hat` a bare head."""

    background: str | None
    body: str | None
    belly: str | None
    hat: str | None


@dataclass(frozen=True)
class Verdict:
    """Boolean [n] arrays, one entry per image: whether it shows what was expected."""

    background: np.ndarray
    body: np.ndarray
    belly: np.ndarray
    hat: np.ndarray

    @property
    def parts(self) -> dict[str, np.ndarray]:
        return {"background": self.background, "body": self.body, "belly": self.belly, "hat": self.hat}

    @property
    def all_right(self) -> np.ndarray:
        return np.logical_and.reduce(list(self.parts.values()))


def colour_map(images: np.ndarray) -> np.ndarray:
    """Index of each pixel's colour in COLOURS: int8 [n, 4096].

    -1 for ink, a background tone, and pixels far from every colour.
    """
    known = np.asarray([*COLOURS.values(), INK, *BACKGROUND_TONES], np.float32)
    pixels = images.reshape(-1, 3).astype(np.float32)
    # |p - c|^2 as a matrix product.
    squared = (pixels**2).sum(1, keepdims=True) - 2 * pixels @ known.T + (known**2).sum(1)
    nearest = squared.argmin(1).astype(np.int8)
    nearest[(squared.min(1) >= COLOUR_LIMIT**2) | (nearest >= len(_NAMES))] = -1
    return nearest.reshape(len(images), -1)


def _grown(masks: np.ndarray, steps: int = 1) -> np.ndarray:
    """Masks [p, 64, 64] dilated by 4-neighbours, `steps` times; pixels outside the image belong to no mask."""
    for _ in range(steps):
        grown = masks.copy()
        grown[:, 1:] |= masks[:, :-1]
        grown[:, :-1] |= masks[:, 1:]
        grown[:, :, 1:] |= masks[:, :, :-1]
        grown[:, :, :-1] |= masks[:, :, 1:]
        masks = grown
    return masks


def _eroded(masks: np.ndarray) -> np.ndarray:
    return ~_grown(~masks)


@dataclass(frozen=True)
class _Templates:
    """Masks of every placement of the grid.

    `find_*`: weights [4096, p] of the search. The others: eroded masks [p, 4096].
    """

    find_body: np.ndarray
    find_belly: np.ndarray
    body: np.ndarray
    belly: np.ndarray
    hat: np.ndarray


def _weights(masks: np.ndarray) -> np.ndarray:
    """Masks [p, 64, 64] -> float [4096, p]; each column sums to 1."""
    flat = masks.reshape(len(masks), -1).T.astype(np.float32)
    return flat / flat.sum(0)


@lru_cache(maxsize=1)
def _places() -> np.ndarray:
    """Every placement of the grid: float [p, 3], x, y, scale."""
    return np.asarray([(x, y, s) for s in GRID_SCALE for y in GRID_Y for x in GRID_X])


@lru_cache(maxsize=len(CLASSES))
def _templates(noun: str) -> _Templates:
    places = [Placement(*map(float, place)) for place in _places()]
    masks = [part_masks(noun, place, with_hat=False) for place in places]
    bare = {name: np.stack([m[name] for m in masks]) for name in ("body", "belly", "ink", "hat")}
    subject, hat = bare["body"] | bare["belly"] | bare["ink"], bare["hat"]
    # Body and belly without the pixels that a hat would cover, so that they look the same with and without one.
    body, belly = bare["body"] & ~hat, bare["belly"] & ~hat
    around = _grown(subject, 2) & ~subject & ~hat
    judged = (_eroded(body), _eroded(belly), _eroded(hat) & ~_grown(subject))
    return _Templates(
        _weights(body) - 0.5 * _weights(around), _weights(belly), *(m.reshape(len(places), -1) for m in judged)
    )


def _best_placement(colours: np.ndarray, templates: _Templates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the placement, the body's and the belly's colour, int [n] each, from a colour map [n, 4096]."""
    n, k = len(colours), len(_NAMES)
    maps = (colours[:, None] == np.arange(k)[:, None]).reshape(n * k, -1).astype(np.float32)
    body = (maps @ templates.find_body).reshape(n, k, 1, -1)
    belly = (maps @ templates.find_belly).reshape(n, 1, k, -1)
    score = np.where(np.eye(k, dtype=bool)[..., None], -np.inf, body + belly)
    best = score.reshape(n, -1).argmax(1)
    first, second, place = np.unravel_index(best, (k, k, score.shape[-1]))
    return place, first, second


def _share(colours: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share (0..1) of each image's mask [n, 4096] that each colour fills: [n, 6]."""
    size = np.maximum(masks.sum(1), 1)
    return np.stack([((colours == c) & masks).sum(1) / size for c in range(len(_NAMES))], axis=1)


def _hat_name(share: np.ndarray) -> str | None:
    best = int(share.argmax())
    if share[best] >= HAT_FILLED:
        return _NAMES[best]
    return None if share[best] < HAT_TRACE else UNCLEAR


def _check(images: np.ndarray, nouns: Sequence[str]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}; the oracle reads uint8 [n, {SIZE}, {SIZE}, 3]"
        )
    if len(nouns) != len(images):
        raise ValueError(f"{len(images)} images but {len(nouns)} class nouns; give one for each image")


class Oracle:
    """Reads images of the toybox world and compares them with expected scenes; the module's docstring has the rules."""

    def read(self, images: np.ndarray, nouns: Sequence[str]) -> list[Reading]:
        """What images uint8 [n, 64, 64, 3] show; `nouns`: for each image the class noun whose templates are searched.

        Raises ValueError for another shape or type, another number of nouns, and a noun that is not in the world.
        """
        _check(images, nouns)
        found: list[Reading | None] = [None] * len(images)
        for noun in sorted(set(nouns)):
            where = [i for i, name in enumerate(nouns) if name == noun]
            for start in range(0, len(where), _CHUNK):
                part = where[start : start + _CHUNK]
                for i, reading in zip(part, _read_chunk(images[part], noun), strict=True):
                    found[i] = reading
        return [r for r in found if r is not None]

    def placements(self, images: np.ndarray, nouns: Sequence[str]) -> np.ndarray:
        """Placement of the best template in each image: float [n, 3], x, y and scale in pixels.

        Raises ValueError as `read` does.
        """
        _check(images, nouns)
        found = np.zeros((len(images), 3))
        for noun in sorted(set(nouns)):
            where = np.flatnonzero([name == noun for name in nouns])
            for part in np.split(where, range(_CHUNK, len(where), _CHUNK)):
                found[part] = _places()[_best_placement(colour_map(images[part]), _templates(noun))[0]]
        return found

    def judge(self, images: np.ndarray, scenes: Sequence[Scene]) -> Verdict:
        """Compare images uint8 [n, 64, 64, 3] with the n expected scenes. Raises ValueError as `read` does."""
        readings = self.read(images, [s.noun for s in scenes])
        right = {
            name: np.asarray(
                [getattr(r, name) == getattr(s, name) for r, s in zip(readings, scenes, strict=True)], bool
            )
            for name in ("background", "body", "belly", "hat")
        }
        return Verdict(**right)


def _read_chunk(images: np.ndarray, noun: str) -> list[Reading]:
    distances = background_distances(images)
    nearest = distances.argmin(1)
    templates, colours = _templates(noun), colour_map(images)
    place, first, second = _best_placement(colours, templates)
    rows = np.arange(len(images))
    body = _share(colours, templates.body[place])[rows, first]
    belly = _share(colours, templates.belly[place])[rows, second]
    hats = _share(colours, templates.hat[place])
    return [
        Reading(
            BACKGROUNDS[nearest[i]] if distances[i, nearest[i]] <= BACKGROUND_LIMIT else None,
            _NAMES[first[i]] if body[i] >= FILLED else None,
            _NAMES[second[i]] if belly[i] >= FILLED else None,
            _hat_name(hats[i]),
        )
        for i in rows
    ]
