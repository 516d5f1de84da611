"""A first visit, in a real browser on a real ComfyUI: open the quickstart, press Run, look; and do things wrong."""

from __future__ import annotations

import io
import json
import urllib.request

import pytest
from browsing import finished, fit, load, page
from hosting import Server
from PIL import Image
from workflows import FOLDER

NAMES = sorted(f.stem for f in FOLDER.glob("*.json"))
# By the page, before Run is pressed: the same wiring in seconds.
SMALL = {
    "DBDPO_LoadToybox": {"steps": 10},
    "DBDPO_SampleCandidates": {"candidates_per_prompt": 3, "steps": 5},
    "DBDPO_BuildPairs": {"max_uses": 10},
    "DBDPO_TrainStep": {"train_steps": 4, "pairs_per_step": 4},
    "DBDPO_Evaluate": {"seeds_per_prompt": 2},
}
PICTURES = (
    "PreviewImage",
    "DBDPO_SampleCandidates",
    "DBDPO_Score",
    "DBDPO_BuildPairs",
    "DBDPO_PreviewPairs",
    "DBDPO_TrainStep",
    "DBDPO_Evaluate",
)
NODE_IDS = (
    "DBDPO_LoadToybox", "DBDPO_Concept", "DBDPO_PromptSet", "DBDPO_SampleCandidates", "DBDPO_LoadScorer", "DBDPO_Score",
    "DBDPO_BuildPairs", "DBDPO_PreviewPairs", "DBDPO_TrainStep", "DBDPO_Evaluate", "DBDPO_KeepBest", "DBDPO_Strength", "DBDPO_SaveLora", "DBDPO_Rounds",
)  # fmt: skip
SET = """values => {
    for (const node of app.graph._nodes)
        for (const [name, value] of Object.entries(values[node.type] ?? {})) {
            const widget = node.widgets.find(w => w.name === name)
            widget.value = value
            widget.callback?.(value)
        }
}"""
UNLINK = """([type, name]) => {
    const node = app.graph._nodes.find(n => n.type === type)
    node.disconnectInput(node.inputs.findIndex(i => i.name === name))
}"""


@pytest.fixture
def view(server: Server):
    """A page that ends with no error of its own, and asked nothing of another machine."""
    with page(server) as opened:
        yield opened
        assert not opened.errors
        assert not opened.left


def quickstart(view) -> None:
    load(view, json.loads((FOLDER / "toybox_quickstart.json").read_text(encoding="utf-8")))
    view.evaluate(SET, SMALL)


def press_run(view) -> tuple[int, dict]:
    """The real button; the server's answer."""
    with view.expect_response(lambda r: r.url.endswith("/prompt") and r.request.method == "POST") as found:
        view.get_by_role("button", name="Run", exact=True).click()
    return found.value.status, found.value.json()


def reads(view, text: str) -> None:
    """A user can see this text now, in a dialog or message over the canvas."""
    view.locator("[role=dialog], [role=alert], .p-toast-message").filter(has_text=text).first.wait_for(state="visible")


def red(view) -> list[str]:
    """Nodes that the front end marks as wrong."""
    return view.evaluate(
        """app.graph._nodes.filter(n =>
            n.has_errors || app.lastNodeErrors?.[n.id] || app.lastExecutionError?.node_id == n.id).map(n => n.type)"""
    )


def test_from_browse_templates_to_a_saved_lora(server: Server, view):
    view.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    view.get_by_text("dreambooth_dpo", exact=True).first.click()
    card = view.get_by_test_id("template-workflow-toybox_quickstart")
    card.wait_for()
    picture = card.locator("img").first
    with Image.open(FOLDER / "toybox_quickstart.jpg") as thumbnail:
        size = thumbnail.size
    view.wait_for_function(
        "([i, w, h]) => i.complete && i.naturalWidth === w && i.naturalHeight === h", arg=[picture.element_handle(), *size]
    )
    card.click()
    view.wait_for_function("app.graph._nodes.some(n => n.type === 'DBDPO_Evaluate')")
    view.wait_for_timeout(500)
    view.evaluate(SET, SMALL)
    status, answer = press_run(view)
    assert status == 200, answer
    history = finished(view, server, answer["prompt_id"], 170)
    assert history["status"]["status_str"] == "success", history["status"]
    fit(view)  # a node's pictures are fetched when it is drawn
    view.wait_for_function(
        """kinds => app.graph._nodes.filter(n => kinds.includes(n.type)).every(
            n => app.nodeOutputs[n.id]?.images?.length && n.imgs?.length && n.imgs.every(i => i.complete && i.naturalWidth > 60))""",
        arg=PICTURES,
    )
    texts = view.evaluate("Object.fromEntries(app.graph._nodes.map(n => [n.title, (app.nodeOutputs[n.id]?.text ?? []).join()]))")
    assert texts["Save DPO LoRA"].startswith("saved as dreambooth_dpo/toybox_0")
    name = texts["Save DPO LoRA"].removeprefix("saved as ")
    assert (server.folder / "models" / "loras" / name).is_file()
    assert "40 held-out pictures of 20 prompts" in texts["Evaluate Before/After"]
    # The report can be read on the canvas, too.
    shown = view.evaluate("app.graph._nodes.find(n => n.title === 'Did it get better?').widgets.map(w => String(w.value)).join()")
    assert "40 held-out pictures of 20 prompts" in shown
    # What Evaluate goes on showing is its grid, and not the last live preview: its picture has the grid's shape.
    grid = history["outputs"][str(view.evaluate("app.graph._nodes.find(n => n.type === 'DBDPO_Evaluate').id"))]["images"][0]
    with Image.open(server.folder / "temp" / grid["subfolder"] / grid["filename"]) as kept:
        shape = kept.width / kept.height
    ratio = view.evaluate(
        "app.graph._nodes.filter(n => n.type === 'DBDPO_Evaluate').map(n => n.imgs[0].naturalWidth / n.imgs[0].naturalHeight)[0]"
    )
    assert ratio == pytest.approx(shape, rel=0.01)
    assert red(view) == []


def test_wrong_values_are_named_before_anything_is_drawn(server: Server, view):
    quickstart(view)
    view.evaluate(SET, {"DBDPO_BuildPairs": {"angle_low": 80, "angle_high": 30}, "DBDPO_SampleCandidates": {"run_name": "never"}})
    status, answer = press_run(view)
    assert status == 400
    assert "angle_low 80 must be below angle_high 30" in json.dumps(answer)
    reads(view, "angle_low 80 must be below angle_high 30")
    assert red(view) == ["DBDPO_BuildPairs"]
    assert not (server.folder / "output" / "dreambooth_dpo" / "never").exists()


def test_an_open_slot_is_named(view):
    quickstart(view)
    view.evaluate(UNLINK, ["DBDPO_SampleCandidates", "model"])
    assert press_run(view)[0] == 400
    reads(view, "Required input is missing: model")
    assert red(view) == ["DBDPO_SampleCandidates"]


def test_a_prompt_without_the_subject_is_explained(server: Server, view):
    quickstart(view)
    for name in ("text", "held_out_text"):
        view.evaluate(UNLINK, ["DBDPO_PromptSet", name])
    view.evaluate(SET, {"DBDPO_PromptSet": {"preset": "own text", "text": "a robot in the snow", "held_out_text": ""}})
    status, answer = press_run(view)
    assert status == 200, answer
    finished(view, server, answer["prompt_id"], 60)
    reads(view, "does not name the concept")
    assert red(view) == ["DBDPO_PromptSet"]


def fetched(server: Server, path: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(server.url + path, timeout=30) as answer:
        return answer.headers.get_content_type(), answer.read()


def test_every_node_has_its_help_page(server: Server):
    ours = {name for name in server.get("/object_info") if name.startswith("DBDPO_")}
    assert ours == set(NODE_IDS)
    for name in NODE_IDS:
        assert fetched(server, f"/extensions/dreambooth_dpo/docs/{name}.md")[1].decode("utf-8").startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_offered_with_its_thumbnail(name: str, server: Server):
    assert name in server.get("/workflow_templates")["dreambooth_dpo"]
    kind, data = fetched(server, f"/api/workflow_templates/dreambooth_dpo/{name}.jpg")
    with Image.open(io.BytesIO(data)) as picture:
        assert kind == "image/jpeg" and picture.format == "JPEG" and picture.width >= 1000
