"""Photos brought to Subject Photos as a user does: by its button, and dropped onto the node; then undone, and run."""

from __future__ import annotations

import base64
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
# A drop of files at a place of the page, on what lies there, as a browser sends it.
DROP = """([files, [x, y]]) => {
    const dataTransfer = new DataTransfer()
    for (const [name, type, data] of files)
        dataTransfer.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name, { type }))
    const target = document.elementFromPoint(x, y)
    for (const kind of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(new DragEvent(kind,
            { bubbles: true, cancelable: true, composed: true, clientX: x, clientY: y, dataTransfer }))
}"""
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


def drop(view, place: list[float], *files: Path) -> None:
    kinds = {".png": "image/png", ".jpg": "image/jpeg"}
    sent = [[f.name, kinds.get(f.suffix, ""), base64.b64encode(f.read_bytes()).decode()] for f in files]
    view.evaluate(DROP, [sent, place])


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
    # Another photo of a name that is there: beside it, with its own name, not over it.
    (tmp_path / "more").mkdir()
    (tmp_path / "b cut out.png").rename(tmp_path / "more" / "a.png")
    drop(view, text, tmp_path / "more" / "a.png")
    files_are(view, *four, "subject_photos_2/a.png")
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
