"""Makes the thumbnails of the example workflows for Browse Templates.

`python tools/make_thumbnails.py [names]` writes example_workflows/<name>.jpg. The toybox examples are run to the end in
a real ComfyUI with a real browser; the others, which need the user's models, are only opened.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from browsing import fit, load, page, run, seed_settings
from hosting import Server, comfyui_path
from PIL import Image
from workflows import FOLDER

from example_workflows import graphs

WIDTH, QUALITY, MARGIN = 1280, 85, 24
# Whether all these nodes have loaded their images.
DRAWN = """ids => ids.every(id => {
    const node = app.graph.getNodeById(id)
    return node.imgs?.length && node.imgs.every(i => i.complete && i.naturalWidth > 0)
})"""
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


def picture_nodes(view, history: dict) -> list[int]:
    """Nodes on the canvas that show the images of their run themselves."""
    there = set(view.evaluate("app.graph._nodes.map(n => n.id)"))
    pictures = [
        int(n)
        for n, shown in history["outputs"].items()
        if n.isdigit() and shown.get("images") and "dbdpo_compare" not in shown
    ]
    return [n for n in pictures if n in there]


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


def make(view, server: Server, name: str) -> Image.Image:
    load(view, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
    if name.startswith("toybox"):
        history = run(view, server)
        assert history["status"]["status_str"] == "success", history["status"]
        fit(view)  # pictures are loaded when their node is on the screen
        view.wait_for_function(DRAWN, arg=picture_nodes(view, history))
    fit(view)
    view.wait_for_timeout(1500)
    return screenshot(view)


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        seed_settings(folder, **{"Comfy.Graph.CanvasMenu": False})
        if (example := comfyui_path() / "input" / "example.png").is_file():
            (folder / "input").mkdir(exist_ok=True)
            shutil.copy(example, folder / "input")
        with Server(folder) as server, page(server, 3200, 1900) as view:
            for name in names:
                start = time.monotonic()
                picture = make(view, server, name)
                picture = picture.resize(
                    (WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS
                )
                picture.save(FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)
                kilobytes = (FOLDER / f"{name}.jpg").stat().st_size // 1024
                print(f"{name}: {picture.size}, {kilobytes} KB, {time.monotonic() - start:.0f} s", flush=True)
            assert not view.errors and not view.left, (view.errors, view.left)


if __name__ == "__main__":
    main(sys.argv[1:] or sorted(graphs()))
