"""Cards for Browse Templates: a title, a line, and pictures of a run, or a drawing where the user brings the model."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIDE, EDGE, TOP = 768, 32, 236
"""Size of a card, its edge, and where the pictures begin.

The front ends show it at about 230 pixels, and the newest one puts a badge over the top left corner.
"""
PAPER, INK, SOFT, ACCENT = "#15181e", "#ffffff", "#b9c2cf", "#5aa9ff"


def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _fitting(draw: ImageDraw.ImageDraw, text: str, size: int) -> ImageFont.FreeTypeFont:
    while size > 16 and draw.textlength(text, font(size)) > SIDE - 2 * EDGE:
        size -= 1
    return font(size)


def blank(title: str, line: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    card = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(card)
    draw.text((SIDE - EDGE, 62), "DreamBooth DPO", SOFT, font(30), anchor="rm")
    # Twice, a pixel apart: the only font that Pillow brings has no bold one.
    for shift in (0, 1):
        draw.text((EDGE + shift, 112), title, INK, _fitting(draw, title, 62))
    draw.text((EDGE, 188), line, ACCENT, _fitting(draw, line, 34))
    return card, draw


def put(card: Image.Image, picture: Image.Image, box: tuple[int, int, int, int]) -> None:
    """A picture as large as it fits into left, top, right, bottom; small ones (the toybox's) with their pixels."""
    left, top, right, bottom = box
    scale = min((right - left) / picture.width, (bottom - top) / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    at = (left + (right - left - size[0]) // 2, top + (bottom - top - size[1]) // 2)
    card.paste(picture.convert("RGB").resize(size, how), at)


def rows(card: Image.Image, draw: ImageDraw.ImageDraw, named: Sequence[tuple[str, Sequence[Image.Image]]]) -> None:
    """Rows of small pictures, each row with its name above."""
    height = (SIDE - TOP - EDGE // 2) // len(named)
    for i, (name, pictures) in enumerate(named):
        top = TOP + i * height
        draw.text((EDGE, top + 4), name, SOFT, font(32))
        width = (SIDE - 2 * EDGE) // len(pictures)
        for k, picture in enumerate(pictures):
            put(card, picture, (EDGE + k * width, top + 40, EDGE + (k + 1) * width - 12, top + height - 6))


def grid(card: Image.Image, pictures: Sequence[Image.Image], across: int) -> None:
    """Pictures in equal boxes, on white where they are plots."""
    down = -(-len(pictures) // across)
    width, height = (SIDE - 2 * EDGE) // across, (SIDE - TOP - EDGE) // down
    for i, picture in enumerate(pictures):
        left, top = EDGE + i % across * width, TOP + 10 + i // across * height
        put(card, picture, (left, top, left + width - 12, top + height - 12))


def sliders(draw: ImageDraw.ImageDraw, named: Sequence[tuple[str, float]], top: int) -> None:
    """Widgets of an app: names with bars, and Run."""
    for i, (name, share) in enumerate(named):
        at, end = top + i * 64, SIDE - EDGE
        draw.text((EDGE, at + 6), name, SOFT, font(30))
        draw.rounded_rectangle((330, at, end, at + 46), 10, fill="#232a34")
        draw.rounded_rectangle((330, at, 330 + (end - 330) * share, at + 46), 10, fill="#2f5f95")
    at = top + len(named) * 64
    draw.rounded_rectangle((330, at, SIDE - EDGE, at + 56), 12, fill=ACCENT)
    draw.text((330 + (SIDE - EDGE - 330) / 2, at + 28), "Run", PAPER, font(34), anchor="mm")


def plane(draw: ImageDraw.ImageDraw) -> None:
    """Your LoRA and the better one, in the plane of fidelity and alignment. A sketch: no measured values."""
    left, top, right, bottom = EDGE + 60, TOP + 24, SIDE - EDGE - 20, SIDE - 84
    draw.line((left, bottom, right, bottom), SOFT, 5)
    draw.line((left, top, left, bottom), SOFT, 5)
    draw.text(((left + right) / 2, bottom + 34), "fidelity: looks like the subject", SOFT, font(32), anchor="mm")
    upright = Image.new("L", (bottom - top, 44), 0)
    ImageDraw.Draw(upright).text(((bottom - top) / 2, 22), "alignment: follows the prompt", 255, font(30), anchor="mm")
    draw.bitmap((left - 60, top), upright.rotate(90, expand=True), SOFT)
    points = [
        (left + 130, bottom - 110),
        (left + 250, bottom - 200),
        (left + 350, bottom - 290),
        (left + 430, top + 60),
    ]
    draw.line(points, ACCENT, 9, joint="curve")
    for i, (x, y) in enumerate(points):
        radius = 17 if 0 < i < len(points) - 1 else 30
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), "#8a93a0" if i == 0 else ACCENT)
    draw.text((points[0][0] + 44, points[0][1] + 4), "your LoRA", INK, font(40), anchor="lm")
    draw.text((points[-1][0] - 44, points[-1][1]), "better LoRA", INK, font(40), anchor="rm")
