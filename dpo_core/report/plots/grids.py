"""Image grids: before and after by prompt and seed, pairs with their scores, reference photos.

Pure functions: uint8 arrays in, a PIL image out. Small images are enlarged by whole factors (nearest), large ones
reduced (Lanczos).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .theme import colours

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

CELL = 128
"""Longer side of one image in a grid. Unit: pixels."""
GAP, PAIR_HEAD, SMALL = 8, 90, 19


@dataclass(frozen=True)
class PairPicture:
    """One pair as the pair grid shows it.

    winner, loser: uint8 [H, W, 3]; scores: raw (fidelity, alignment); angle in degrees; length in standard deviations.
    """

    prompt: str
    winner: np.ndarray
    loser: np.ndarray
    winner_scores: tuple[float, float]
    loser_scores: tuple[float, float]
    angle: float
    length: float


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices of range(count), evenly spaced from first to last, chosen without looking at any data."""
    if count <= most:
        return list(range(count))
    return sorted({int(i) for i in np.linspace(0, count - 1, most).round()})


def over_prompts(prompt_of: Sequence[int]) -> list[int]:
    """An order of items, by the prompt of each, in which every beginning shows as many prompts as it can.

    First the first item of each prompt, then the second of each, and so on; prompts in an order that spreads every
    beginning over their list (van der Corput's). Nothing is chosen by its score.
    """
    prompts = sorted(set(prompt_of))
    bits = max(1, (len(prompts) - 1).bit_length())
    spread = {prompt: int(format(i, f"0{bits}b")[::-1], 2) for i, prompt in enumerate(prompts)}
    seen: Counter[int] = Counter()
    places = []
    for i, prompt in enumerate(prompt_of):
        places.append((seen[prompt], spread[prompt], i))
        seen[prompt] += 1
    return [i for *_, i in sorted(places)]


@lru_cache(maxsize=8)
def font(size: int, bold: bool = False) -> FreeTypeFont:
    """DejaVu Sans as shipped with matplotlib, `size` in pixels: the same letters on every machine."""
    from pathlib import Path

    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def fit(picture: np.ndarray, cell: int = CELL) -> Image:
    """One image uint8 [H, W, 3] scaled so that its longer side is at most `cell`, aspect kept.

    Small images are enlarged by a whole factor, large ones reduced.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    longer = max(image.size)
    if longer <= cell:
        factor = max(1, cell // longer)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    scale = cell / longer
    return image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )


def wrap(text: str, width: int, lines: int, letters: FreeTypeFont) -> list[str]:
    """`text` broken into at most `lines` lines of `width` pixels; an ellipsis marks a cut.

    Breaks at spaces; words wider than a line are broken inside.
    """
    done: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if letters.getlength(longer) <= width:
            line = longer
            continue
        if line:
            done.append(line)
        while letters.getlength(word) > width and len(word) > 1:
            cut = next(i for i in range(len(word) - 1, 0, -1) if i == 1 or letters.getlength(word[:i]) <= width)
            done.append(word[:cut])
            word = word[cut:]
        line = word
    if line:
        done.append(line)
    if len(done) <= lines:
        return done
    last = done[lines - 1]
    while last and letters.getlength(last + "…") > width:
        last = last[:-1]
    return [*done[: lines - 1], last.rstrip() + "…"]


def _canvas(width: int, height: int) -> tuple[Image, ImageDraw]:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), colours().paper)
    return image, ImageDraw.Draw(image)


def before_after_grid(
    before: Sequence[np.ndarray], after: Sequence[np.ndarray], prompts: Sequence[str], cell: int = CELL
) -> Image:
    """One row a prompt, two columns a seed: before and after of the same seed side by side.

    before, after: for each prompt uint8 [seeds, H, W, 3]; the number of seeds may differ between prompts. `prompts`
    must not be empty.
    """
    seeds = max(len(b) for b in before)
    tile_h = max(fit(b[0], cell).height for b in before if len(b))
    text_w, head = 2 * cell, 62
    group = 2 * cell + 2
    width = text_w + seeds * (group + 2 * GAP) + GAP
    image, draw = _canvas(width, head + len(prompts) * (tile_h + GAP) + GAP)
    for s in range(seeds):
        left = text_w + GAP + s * (group + 2 * GAP)
        draw.text((left + group / 2, 17), f"seed {s + 1}", fill=colours().ink, font=font(20, True), anchor="mm")
        draw.text((left + cell / 2, 45), "before", fill=colours().faint, font=font(19), anchor="mm")
        draw.text((left + cell + 2 + cell / 2, 45), "after", fill=colours().blue, font=font(19, True), anchor="mm")
    for row, (prompt, old, new) in enumerate(zip(prompts, before, after, strict=True)):
        top = head + row * (tile_h + GAP)
        _text_block(draw, prompt, (GAP, top, text_w - 2 * GAP, tile_h))
        for s, (a, b) in enumerate(zip(old, new, strict=True)):
            left = text_w + GAP + s * (group + 2 * GAP)
            for x, picture in ((left, fit(a, cell)), (left + cell + 2, fit(b, cell))):
                image.paste(picture, (x + (cell - picture.width) // 2, top + (tile_h - picture.height) // 2))
    return image


def _text_block(
    draw: ImageDraw, text: str, box: tuple[int, int, int, int], sizes: Sequence[int] = (21, 18, 15)
) -> None:
    """Draw text left-aligned and vertically centred in a box (x, y, width, height).

    Uses the largest of `sizes` in which all of it fits; if none does, the text is cut.
    """
    left, top, width, height = box
    for size in sizes:
        step = round(1.25 * size)
        lines = wrap(text, width, max(1, height // step), font(size))
        if not (lines and lines[-1].endswith("…")):
            break
    for i, line in enumerate(lines):
        draw.text(
            (left, top + height / 2 + (i - (len(lines) - 1) / 2) * step),
            line,
            fill=colours().ink,
            font=font(size),
            anchor="lm",
        )


def pairs_grid(pairs: Sequence[PairPicture], cell: int = CELL, columns: int = 2) -> Image:
    """Winner and loser side by side over their raw scores, below prompt, angle and length.

    `pairs` must not be empty.
    """
    columns = min(columns, len(pairs))
    block_w, pad = 2 * cell + 12 + 2 * 40, 20
    tile_h = max(fit(p.winner, cell).height for p in pairs)
    block_h = PAIR_HEAD + tile_h + 108
    rows = -(-len(pairs) // columns)
    image, draw = _canvas(pad + columns * (block_w + pad), pad // 2 + rows * block_h)
    for i, pair in enumerate(pairs):
        left, top = pad + (i % columns) * (block_w + pad), pad // 2 + (i // columns) * block_h
        _pair_block(image, draw, pair, (left, top, block_w, tile_h), cell)
    return image


def _pair_block(image: Image, draw: ImageDraw, pair: PairPicture, box: tuple[int, int, int, int], cell: int) -> None:
    left, top, width, tile_h = box
    draw.line((left, top, left + width, top), fill=colours().rule, width=1)
    _text_block(draw, pair.prompt, (left, top + 4, width, 54), sizes=(20, 17, 15))
    draw.text(
        (left, top + 73),
        f"angle {pair.angle:.0f}°, length {pair.length:.2f} SD",
        fill=colours().faint,
        font=font(17),
        anchor="lm",
    )
    half = width // 2
    sides = (
        ("winner", colours().blue, pair.winner, pair.winner_scores),
        ("loser", colours().vermillion, pair.loser, pair.loser_scores),
    )
    for x, (name, colour, pixels, scores) in zip((left, left + half), sides, strict=True):
        picture, bottom = fit(pixels, cell), top + PAIR_HEAD + tile_h
        image.paste(picture, (x + (half - picture.width) // 2, top + PAIR_HEAD + (tile_h - picture.height) // 2))
        draw.text((x + half / 2, bottom + 15), name, fill=colour, font=font(20, True), anchor="mm")
        for line, (axis, score) in enumerate(zip(("fidelity", "alignment"), scores, strict=True)):
            at = (x + half / 2, bottom + 41 + 24 * line)
            draw.text(at, f"{axis} {score:.3f}", fill=colours().ink, font=font(20), anchor="mm")


def references_strip(references: Sequence[np.ndarray], cell: int = CELL, most: int = 8) -> Image:
    """The first `most` reference photos (uint8 [H, W, 3] each) in one row. `references` must not be empty."""
    tiles = [fit(r, cell) for r in references[:most]]
    height = max(t.height for t in tiles)
    image, _ = _canvas(sum(t.width for t in tiles) + GAP * (len(tiles) + 1), height + 2 * GAP)
    x = GAP
    for tile in tiles:
        image.paste(tile, (x, GAP + (height - tile.height) // 2))
        x += tile.width + GAP
    return image


def columns_grid(
    columns: Sequence[Sequence[np.ndarray]], prompts: Sequence[str], labels: Sequence[str], marked: int | None = None
) -> Image:
    """One row a prompt, one labelled column a model or setting; a row's images share a seed.

    columns: for each label the images (uint8 [H, W, 3]) of the prompts. A label's further lines are small, two of them
    at most. `marked`: the column shown with a frame and bold type.
    """
    cell, text_w, head = CELL, 2 * CELL, 46 + (2 * SMALL if any("\n" in label for label in labels) else 0)
    tile_h = max(fit(picture, cell).height for column in columns for picture in column)
    height = head + len(prompts) * (tile_h + GAP) + GAP
    image, draw = _canvas(text_w + len(columns) * (cell + GAP) + GAP, height)
    for row, prompt in enumerate(prompts):
        _text_block(draw, prompt, (GAP, head + row * (tile_h + GAP), text_w - 2 * GAP, tile_h))
    for number, (label, column) in enumerate(zip(labels, columns, strict=True)):
        left = text_w + GAP + number * (cell + GAP)
        if number == marked:
            draw.rectangle(
                (left - GAP // 2, 2, left + cell + GAP // 2 - 1, height - 3), outline=colours().blue, width=3
            )
        colour, bold = (colours().blue, True) if number == marked else (colours().ink, False)
        first, _, more = label.partition("\n")
        draw.text((left + cell / 2, 25), first, fill=colour, font=font(20, bold), anchor="mm")
        for line, words in enumerate(wrap(more, cell, 2, font(SMALL - 3, bold))):
            draw.text((left + cell / 2, 46 + line * SMALL), words, fill=colour, font=font(SMALL - 3, bold), anchor="mm")
        for row, picture in enumerate(column):
            tile = fit(picture, cell)
            image.paste(
                tile, (left + (cell - tile.width) // 2, head + row * (tile_h + GAP) + (tile_h - tile.height) // 2)
            )
    return image
