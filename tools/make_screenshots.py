"""Makes screenshots of an example after a run, on each front end.

`python tools/make_screenshots.py [names]` writes docs/img/front_ends_<name>.jpg. The front ends are those of the
browser tests: the one that ComfyUI pins, the newest, and the newest with HTML nodes (Nodes 2.0).
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from browsing import FRONT_ENDS, fit, load, page, run, seed_settings
from hosting import ROOT, Server, comfyui_path
from hosts import NEWEST_FRONT_END, version_of
from PIL import Image, ImageDraw, ImageFont
from workflows import FOLDER

WIDTH, TITLE, QUALITY, MARGIN = 1000, 26, 80, 24
AREA = """() => {
    const box = [1e9, 1e9, -1e9, -1e9]
    for (const n of app.graph._nodes) {
        const [x, y] = app.canvas.ds.convertOffsetToCanvas([n.pos[0], n.pos[1] - 30])
        const [right, bottom] = app.canvas.ds.convertOffsetToCanvas([n.pos[0] + n.size[0], n.pos[1] + n.size[1]])
        box[0] = Math.min(box[0], x); box[1] = Math.min(box[1], y)
        box[2] = Math.max(box[2], right); box[3] = Math.max(box[3], bottom)
    }
    const at = app.canvas.canvas.getBoundingClientRect()
    return [box[0] + at.left, box[1] + at.top, box[2] + at.left, box[3] + at.top]
}"""
TITLES = {
    "pinned": f"the front end that ComfyUI {version_of(comfyui_path())} pins",
    "newest": f"front end {NEWEST_FRONT_END}, canvas",
    "nodes2": f"front end {NEWEST_FRONT_END}, Nodes 2.0",
}


def screenshot(view) -> Image.Image:
    """All nodes, without the bars at the sides."""
    left, top, right, bottom = view.evaluate(AREA)
    clip = {
        "x": left - MARGIN,
        "y": top - MARGIN,
        "width": right - left + 2 * MARGIN,
        "height": bottom - top + 2 * MARGIN,
    }
    return Image.open(io.BytesIO(view.screenshot(clip=clip))).convert("RGB")


def seen(front_end: str, name: str) -> Image.Image:
    """Screenshot of the whole graph after its run, on one front end."""
    kind = FRONT_ENDS[front_end]
    with tempfile.TemporaryDirectory() as base:
        seed_settings(Path(base), **{"Comfy.Graph.CanvasMenu": False, **kind.settings})
        with Server(Path(base), *kind.arguments) as server, page(server, 800, 600) as view:
            load(view, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
            history = run(view, server)
            assert history["status"]["status_str"] == "success", history["status"]
            view.set_viewport_size(
                {"width": 3200, "height": 1900}
            )  # only after the run, because drawing takes CPU time from it
            for _ in range(2):  # images are loaded when their node is on the screen, and may make it taller
                fit(view)
                view.wait_for_timeout(4000)
            assert not view.errors and not view.left, (view.errors, view.left)
            return screenshot(view)


def sheet(pictures: dict[str, Image.Image]) -> Image.Image:
    """Images one below the other, each with its title."""
    small = {
        n: p.resize((WIDTH, round(p.height * WIDTH / p.width)), Image.Resampling.LANCZOS) for n, p in pictures.items()
    }
    whole = Image.new("RGB", (WIDTH, sum(p.height + TITLE for p in small.values())), "white")
    draw, top = ImageDraw.Draw(whole), 0
    for name, picture in small.items():
        draw.text((6, top + 4), TITLES[name], fill="black", font=ImageFont.load_default(15))
        whole.paste(picture, (0, top + TITLE))
        top += picture.height + TITLE
    return whole


def main(names: list[str]) -> None:
    for name in names:
        start = time.monotonic()
        path = ROOT / "docs" / "img" / f"front_ends_{name}.jpg"
        sheet({front_end: seen(front_end, name) for front_end in FRONT_ENDS}).save(path, quality=QUALITY, optimize=True)
        print(f"{path.name}: {path.stat().st_size // 1024} KB, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["toybox_quickstart"])
