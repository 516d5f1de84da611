"""Photos of a made-up subject, a red disc, as users have them: masked, cut out, turned by EXIF, and unusable ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

RED = (200, 60, 40)


def scene(size: tuple[int, int], box: tuple[int, int, int, int], seed: int = 0) -> tuple[Image.Image, Image.Image]:
    """A photo (RGB) of this size with a red disc in the box, and the disc's mask (L)."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    photo = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    ImageDraw.Draw(photo).ellipse(box, fill=RED)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return photo, mask


def write_subject(folder: Path) -> None:
    """Four photos: masked, cut out, turned by EXIF, with a name of other letters. Five files that are not used."""
    folder.mkdir(parents=True, exist_ok=True)
    photo, mask = scene((240, 160), (160, 40, 220, 120))
    photo.save(folder / "a.png")
    mask.save(folder / "a_mask.png")
    cut, mask = scene((180, 280), (20, 140, 100, 260), 1)
    cut.putalpha(mask)
    cut.save(folder / "b cut out.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    scene((128, 96), (40, 20, 80, 60), 2)[0].save(folder / "c.jpg", exif=turned, quality=95)
    scene((100, 100), (25, 25, 75, 75), 3)[0].save(folder / "Hündchen 犬.png")
    (folder / "zwilling.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "page.jpg").write_bytes(b"<html>")
    (folder / "clip.mp4").write_bytes(b"x")
    (folder / "notes.txt").write_text("x", encoding="utf-8")
    Image.new("RGB", (40, 30)).save(folder / "tiny.png")


def write_own_pairs(folder: Path, names: str, size: tuple[int, int]) -> None:
    """A person's own pairs of plain pictures, one for each letter: winners of red 200, losers of red 20."""
    for side, red in (("winner", 200), ("loser", 20)):
        (folder / side).mkdir(parents=True)
        for name in names:
            Image.new("RGB", size, (red, 60, 60)).save(folder / side / f"{name}.png")
