"""Photos brought to Subject Photos as a user does: by its button, and dropped onto the node; then undone, and run."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import load, look_at, run
from hosting import Server
from subject_files import write_subject
from toy_graphs import node
from workflows import to_ui

pytestmark = pytest.mark.front_ends(
    "pinned", "nodes2", why="a canvas, and a page of HTML nodes: drops reach a node in two ways"
)
KIND = "DBDPO_SubjectPhotos"
VALUES = f"""() => Object.fromEntries(app.graph._nodes.find(n => n.type === "{KIND}").widgets
    .filter(w => ["folder", "files"].includes(w.name)).map(w => [w.name, w.value]))"""
# The middle of the title, and of the text widget.
PLACES = f"""() => {{
    const node = app.graph._nodes.find(n => n.type === "{KIND}"), at = app.canvas.canvas.getBoundingClientRect()
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] - 15])
    const html = document.querySelector(`[data-node-id="${{node.id}}"] textarea`)
    const box = (html ?? node.widgets.find(w => w.name === "files").element).getBoundingClientRect()
    return [[x + at.left, y + at.top], [box.left + box.width / 2, box.top + box.height / 2]]
}}"""


def graph() -> dict:
    photos = node("SubjectPhotos", folder="other", files="example.png", size=128)
    seen = {"class_type": "PreviewImage", "inputs": {"images": ["photos", 0]}, "pos": [700, 0], "size": [300, 300]}
    return {"photos": photos | {"pos": [0, 0], "size": [420, 900]}, "seen": seen}


def files_are(view, *names: str) -> None:
    view.wait_for_function(f"text => ({VALUES})().files === text", arg="\n".join(names))


def drop(view, place: list[float], *paths: Path) -> None:
    """A real drag of files and folders onto a place of the page."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = view.context.new_cdp_session(view)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"type": kind, "x": place[0], "y": place[1], "data": data}
        session.send("Input.dispatchDragEvent", at)
        view.wait_for_timeout(200)


def test_photos_are_picked_dropped_undone_and_run(view, server: Server, tmp_path: Path):
    write_subject(tmp_path)
    write_subject(server.folder / "input" / "other")
    load(view, to_ui(graph(), server.get("/object_info")))
    look_at(view, KIND, 0.8)
    with view.expect_file_chooser() as chooser:
        view.get_by_role("button", name="Add photos…").click()
    assert chooser.value.is_multiple()
    chooser.value.set_files([tmp_path / "c.jpg", tmp_path / "a.png", tmp_path / "Hündchen 犬.png"])
    three = [f"subject_photos/{name}" for name in ("a.png", "c.jpg", "Hündchen 犬.png")]
    files_are(view, *three)
    assert view.evaluate(VALUES)["folder"] == "(files below)", "the placeholder and the folder gave way"
    view.get_by_text("3 files", exact=True).wait_for()
    assert (server.folder / "input" / three[0]).read_bytes() == (tmp_path / "a.png").read_bytes()

    title, text = view.evaluate(PLACES)
    drop(view, title, tmp_path / "a_mask.png", tmp_path / "notes.txt")
    four = [*three, "subject_photos/a_mask.png"]
    files_are(view, *four)
    view.get_by_text("not taken, no pictures: notes.txt").wait_for()
    # A folder with a photo of a name that is there: into another folder, with its own name and its mask.
    (tmp_path / "more" / "masks").mkdir(parents=True)
    (tmp_path / "c.jpg").rename(tmp_path / "more" / "a.png")
    (tmp_path / "a_mask.png").rename(tmp_path / "more" / "masks" / "a.png")
    drop(view, text, tmp_path / "more")
    files_are(view, *four, "subject_photos_2/a.png", "subject_photos_2/masks/a.png")
    assert (server.folder / "input" / three[0]).read_bytes() == (tmp_path / "a.png").read_bytes()

    view.keyboard.press("Escape")
    view.evaluate("async () => { await app.extensionManager.command.execute('Comfy.Undo') }")
    files_are(view, *four)
    view.get_by_text("4 files", exact=True).wait_for()
    said = run(view, server)["outputs"]
    (text,) = next(output["text"] for output in said.values() if "text" in output)
    assert text.startswith("3 photos of 128x128: 3 references.\nMasks cover ") and "of a.png (a_mask.png)" in text
    view.get_by_text("3 photos of 128x128").first.wait_for()
    assert view.evaluate("app.graph._nodes.length") == 2, "no drop opened a picture as a workflow"
