"""Makes the images of the nodes for their help pages.

`python tools/make_help_pictures.py [node ids]` writes web/docs/img/<node id>.webp. A graph with every node is run to
the end in a real ComfyUI with a real browser, and each node is cut out of the screenshot.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from browsing import load, look_at, page, run, seed_settings
from hosting import ROOT, Server
from PIL import Image
from workflows import to_ui

from dreambooth_dpo.toybox.concepts import concept_from_seed
from example_workflows import graphs, node, words

FOLDER = ROOT / "web" / "docs" / "img"
WIDTH, MOST_BYTES, MARGIN = 640, 60_000, 10
SCREEN = 1600, 1900
COMPARING = ("epochs", "compare")
"""The nodes of the example of compared epochs that others lack."""
BOX = """kind => {
    const n = app.graph._nodes.find(n => n.type === kind), at = app.canvas.canvas.getBoundingClientRect()
    const [left, top] = app.canvas.ds.convertOffsetToCanvas([n.pos[0], n.pos[1] - 30])
    const [right, bottom] = app.canvas.ds.convertOffsetToCanvas([n.pos[0] + n.size[0], n.pos[1] + n.size[1]])
    return [left + at.left, top + at.top, right + at.left, bottom + at.top]
}"""
SEEN = """kind => app.graph._nodes.filter(n => n.type === kind)
    .every(n => !n.imgs || n.imgs.every(i => i.complete && i.naturalWidth > 0))"""


def every_node() -> dict:
    """The quickstart plus the nodes it lacks: early stopping, strength sweep, inspector, comparison, DPO Rounds."""
    graph = dict(graphs()["toybox_quickstart"][0])
    toy = {"model": ["toy", 0], "clip": ["toy", 1], "vae": ["toy", 2]}
    shared = {
        "clip": ["toy", 1],
        "vae": ["toy", 2],
        "candidates": ["sample", 0],
        "scorer": ["scorer", 0],
        "judge": ["judge", 0],
    }
    graph["keep"] = node(
        "DBDPO_KeepBest",
        2700,
        0,
        (420, 620),
        before=["toy", 0],
        after=["train", 0],
        lora=["train", 1],
        seeds_per_prompt=6,
        **shared,
    )
    graph["strength"] = node(
        "DBDPO_Strength",
        3200,
        0,
        (560, 760),
        model=["toy", 0],
        lora=["train", 1],
        strengths="0, 0.5, 1, 1.5",
        seeds_per_prompt=3,
        **shared,
    )
    if not any(part["class_type"] == "DBDPO_InspectPairs" for part in graph.values()):
        graph["inspect"] = node("DBDPO_InspectPairs", 3900, 0, (1240, 960), pairs=["pairs", 0])
    graph["finish"] = node("DBDPO_FinishCandidates", 2700, 700, (420, 580), **toy, pairs=["pairs", 0], steps=16)
    graph |= {name: part for name, part in graphs()["toybox_compare_epochs"][0].items() if name in COMPARING}
    graph["bare"] = node("DBDPO_LoadToybox", 6500, -600, (340, 345), concept=0, personalized=False, steps=120)
    for name in COMPARING:
        graph[name] |= {"pos": [6500 + 480 * COMPARING.index(name), 0]}
        graph[name]["inputs"] |= {part: ["bare", i] for i, part in enumerate(toy)}
    graph["epochs"]["inputs"]["concept"] = 0
    graph["photos"] = node("DBDPO_SubjectPhotos", 6000, -1000, (420, 880), folder="subject", held_out=1)
    graph["photos_seen"] = node("PreviewImage", 6500, -1000, (420, 380), images=["photos", 0])
    graph["own"] = own_pairs(3200, 900)
    graph["own_words"] = words(3200, 1400, (420, 120), "Own pairs in words", ["own", 1])
    drawing = {k: v for k, v in graph["sample"]["inputs"].items() if not isinstance(v, list)} | {
        "run_name": "toybox_rounds"
    }
    links = {"concept": ["concept", 0], "prompts": ["prompts", 0], "scorer": ["scorer", 0], "judge": ["judge", 0]}
    graph["rounds"] = node("DBDPO_Rounds", 5300, 0, (420, 2400), rounds=1, **toy, **links, **drawing)
    for name, output in (("finish", 1), ("keep", 3)):  # a node without a connected output does not run
        graph[f"{name}_seen"] = node("PreviewImage", 5800, 500, (420, 380), images=[name, output])
    graph["watch"] = node("PreviewImage", 5800, 0, (420, 380), images=["rounds", 4])
    return graph


def own_pairs(left: int, top: int) -> dict:
    """Add Own Pairs on the files of `write_own_pairs`."""
    toy = {"model": ["toy", 0], "vae": ["toy", 2]}
    given = {"source": "own_pairs", "prompt": "a photo of a sks robot", "weight": 2.0}
    return node("DBDPO_OwnPairs", left, top, (420, 420), pairs=["pairs", 0], **toy, **given)


def write_own_pairs(folder: Path) -> None:
    """Two pairs of plain pictures."""
    for side, colour in (("winner", (40, 200, 190)), ("loser", (150, 90, 90))):
        (folder / side).mkdir(parents=True)
        for name in ("beach", "forest"):
            Image.new("RGB", (96, 64), colour).save(folder / side / f"{name}.png")


def write_subject(folder: Path) -> None:
    """Photos of a toybox concept: two with masks, one cut out, two as they are, and a file that is no photo."""
    folder.mkdir(parents=True)
    concept = concept_from_seed(0)
    large = [Image.fromarray(p).resize((512, 512), Image.Resampling.NEAREST) for p in concept.references[:5]]
    masks = [Image.fromarray(m).resize((512, 512), Image.Resampling.NEAREST) for m in concept.masks[:3]]
    large[2].putalpha(masks[2])
    for i, photo in enumerate(large):
        photo.save(folder / f"photo_{i + 1}.png")
    for i, mask in enumerate(masks[:2]):
        mask.save(folder / f"photo_{i + 1}_mask.png")
    (folder / "notes.txt").write_text("taken in the garden", encoding="utf-8")


def picture(view, kind: str) -> Image.Image:
    """Screenshot of the first node of a type, alone."""
    look_at(view, kind)
    view.wait_for_function(SEEN, arg=kind)
    view.wait_for_timeout(600)
    left, top, right, bottom = view.evaluate(BOX, kind)
    clip = {
        "x": left - MARGIN,
        "y": top - MARGIN,
        "width": right - left + 2 * MARGIN,
        "height": bottom - top + 2 * MARGIN,
    }
    return Image.open(io.BytesIO(view.screenshot(clip=clip))).convert("RGB")


def save(image: Image.Image, path: Path) -> int:
    """Save as WebP of at most 60 KB; return its size in bytes."""
    image.thumbnail((WIDTH, 2 * WIDTH), Image.Resampling.LANCZOS)
    for quality in (85, 75, 65, 50):
        image.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size < MOST_BYTES:
            break
    return path.stat().st_size


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        seed_settings(folder, **{"Comfy.Graph.CanvasMenu": False, "Comfy.NodeBadge.NodeSourceBadgeMode": "None"})
        write_own_pairs(folder / "input" / "own_pairs")
        write_subject(folder / "input" / "subject")
        with Server(folder) as server, page(server, *SCREEN) as view:
            info = server.get("/object_info")
            load(view, to_ui(every_node(), info))
            history = run(view, server, 3600)
            assert history["status"]["status_str"] == "success", history["status"]
            for name in names or sorted(n for n in info if n.startswith("DBDPO_")):
                image = picture(view, name)
                print(f"{name}: {image.size}, {save(image, FOLDER / f'{name}.webp') // 1024} KB", flush=True)
            assert not view.errors and not view.left, (view.errors, view.left)


if __name__ == "__main__":
    main(sys.argv[1:])
