"""A first visit, in a real browser on a real ComfyUI: every example opens from Browse Templates, every node has its
help page.
"""

from __future__ import annotations

import io
import json
import urllib.request

import pytest
from browsing import heights, open_template, overlaps
from hosting import Server
from layouts import tallest
from PIL import Image
from workflows import FOLDER, OURS

SERVED = pytest.mark.front_ends("pinned", why="the server is asked, and no page")
NAMES = sorted(f.stem for f in FOLDER.glob("*.json"))


def fetched(server: Server, path: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(server.url + path, timeout=30) as answer:
        return answer.headers.get_content_type(), answer.read()


@SERVED
def test_every_node_has_its_help_page(server: Server):
    ours = [name for name in server.get("/object_info") if name.startswith("DBDPO_")]
    assert len(ours) > 10
    for name in ours:
        assert fetched(server, f"/extensions/dreambooth_dpo/docs/{name}.md")[1].decode("utf-8").startswith("# ")


@SERVED
@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_offered_with_its_thumbnail(name: str, server: Server):
    assert name in server.get("/workflow_templates")["dreambooth_dpo"]
    kind, data = fetched(server, f"/api/workflow_templates/dreambooth_dpo/{name}.jpg")
    with Image.open(io.BytesIO(data)) as picture:
        assert kind == "image/jpeg" and picture.format == "JPEG" and picture.width >= 600


NO_FILES = ("toybox", "a_first_run", "is_my_lora")
ON_THE_CANVAS = [n for n in NAMES if not n.endswith("_as_an_app")]
"""The other one opens as an app: tests/browser/test_one_click.py."""
OPENED = [n for n in ON_THE_CANVAS if n.startswith(("a_first_run", "is_my_lora", "toybox_q", "z_image"))]
"""The examples of the other families differ from these by names and numbers alone (tools/family_workflows.py)."""


@pytest.mark.front_ends("nodes2", why="the dialog is the same; the quickstart opens by it on the pinned one too")
@pytest.mark.parametrize("names", [OPENED, pytest.param(ON_THE_CANVAS, marks=pytest.mark.slow)], ids=["some", "all"])
def test_examples_open_from_browse_templates(view, names: list[str]):
    for name in names:
        saved = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        kinds = sorted(node["type"] for node in saved["nodes"])
        open_template(view, name)
        view.wait_for_function(
            "kinds => app.graph._nodes.map(n => n.type).sort().join() === kinds", arg=",".join(kinds)
        )
        if name.startswith(NO_FILES):  # the others name models that the user brings
            assert view.evaluate("app.graph._nodes.filter(n => n.has_errors).map(n => n.type)") == [], name
        assert overlaps(view) == [], name
        now = heights(view)
        higher = {n["type"]: now[str(n["id"])] for n in saved["nodes"] if now[str(n["id"])] > tallest(n) + 1}
        assert higher == {}, name  # tests/test_example_layout.py reckons with that
        for kept in saved["nodes"]:
            inputs, outputs = view.evaluate(
                "id => { const n = app.graph.getNodeById(id); return [n.inputs.map(i => !!i.link), n.outputs.map(o => "
                "!!o.links?.length)] }",
                kept["id"],
            )
            assert sum(inputs) == sum(bool(i["link"]) for i in kept["inputs"]), (name, kept["type"])
            linked = [bool(o["links"]) for o in kept["outputs"]]
            more = (
                0 if kept["type"].startswith(OURS) else len(outputs) - len(linked)
            )  # what this host's own node has beside what is used
            assert outputs == linked + more * [False], (name, kept["type"])
