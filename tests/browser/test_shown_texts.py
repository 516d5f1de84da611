"""What every node says after a run, in a real browser: it can be read on the node, once, and comes back.

One run a front end holds them all.
"""

from __future__ import annotations

import pytest
from browsing import come_back, fit, load, look_at, run, tab
from hosting import Server
from PIL import Image
from shown import with_text
from subject_files import write_subject
from toy_graphs import FEW_PROMPTS, node, toy_loop_graph
from workflows import to_ui

pytestmark = pytest.mark.front_ends(
    "pinned", "nodes2", why="one canvas and one page of HTML nodes; the newest canvas is opened by three other files"
)
NAMES = with_text()
SIZE = (420, 900)
# The text in the node's view, and what hides it: where it cannot be seen, or something lies over its middle.
READ = """kind => {
    const node = app.graph._nodes.find(n => n.type === kind)
    const words = node.widgets?.find(w => w.name === "said")?.element?.querySelector(".dbdpo-said-words")
    if (!words?.isConnected) return null
    const box = words.getBoundingClientRect(), scale = app.canvas.ds.scale
    const shown = box.width > 150 * scale && box.height > 40 * scale
    const over = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2)
    const seen = shown && words.checkVisibility() && words.contains(over)
    return { text: words.textContent, seen, children: words.children.length }
}"""
# How often the page shows a text: as an element's own, a field's value, or a widget that the canvas draws.
COUNT = """text => {
    const elements = [...document.querySelectorAll("body *")]
        .filter(e => e.checkVisibility() && e.getClientRects().length)
    const fields = elements.filter(e => e.value === text || (e.childElementCount === 0 && e.textContent === text))
    const drawn = app.graph._nodes.flatMap(n => n.widgets ?? [])
        .filter(w => !w.element && !w.hidden && w.value === text)
    return fields.length + drawn.length
}"""


def graph() -> dict:
    """Every node that says something, behind one another: what one has drawn the next need not draw."""
    whole = toy_loop_graph(
        toy={"steps": 9},  # other than in other graphs on this server: an older host does not send cached outputs again
        sample={"run_name": "texts", "steps": 4},
        pairs={"max_uses": 10},
        train={"train_steps": 4},
        prompts=FEW_PROMPTS,
    )
    del whole["look"]
    model, clip, vae = (["toy", i] for i in range(3))
    parts = {"clip": clip, "vae": vae, "scorer": ["scorer", 0], "judge": ["judge", 0], "seeds_per_prompt": 2}
    whole["pairs"]["inputs"]["rule"] = "lambda_harmonic"
    own = {"source": "texts_own", "prompt": "a sks robot", "weight": 2.0}
    whole["own"] = node("OwnPairs", pairs=["pairs", 0], model=model, vae=vae, **own)
    whole["inspect"] = node("InspectPairs", pairs=["own", 0], edits="")
    whole["finish"] = node("FinishCandidates", model=model, clip=clip, vae=vae, pairs=["pairs", 0], steps=5)
    whole["keep"] = node(
        "KeepBest", before=model, after=["train", 0], lora=["train", 1], candidates=["sample", 0], patience=1, **parts
    )
    whole["strength"] = node(
        "Strength", model=model, lora=["train", 1], candidates=["sample", 0], strengths="0, 1", **parts
    )
    whole["epochs"] = node("ToyboxEpochs", model=model, clip=clip, vae=vae, concept=0, steps=2, epochs=1)
    held_out = {k: v for k, v in whole["sample"]["inputs"].items() if k != "candidates_per_prompt"}
    whole["compare"] = node("CompareLoras", **{**held_out, **parts, "loras": ["epochs", 0]})
    drawing, pairing, training = ({**whole[name]["inputs"]} for name in ("sample", "pairs", "train"))
    loop = {k: v for k, v in {**drawing, **pairing, **training, **parts}.items() if k not in ("scored", "pairs")}
    whole["rounds"] = node(
        "Rounds", **{**loop, "train_seed": 1}, rounds=1, keep="best"
    )  # equal nodes would share one result, as the host tells it
    whole["photos"] = node("SubjectPhotos", folder="texts_photos", size=64)
    for name, output in (("finish", 1), ("keep", 3), ("rounds", 4), ("photos", 0)):
        whole[f"look_{name}"] = {"class_type": "PreviewImage", "inputs": {"images": [name, output]}}
    for i, (name, made) in enumerate(whole.items()):
        row, column = divmod(i, 6)
        made |= {"pos": [(SIZE[0] + 60) * column, 1900 * row], "size": [1240, 960] if name == "inspect" else list(SIZE)}
    whole["inspect"]["pos"] = [-1400, 0]
    return whole


@pytest.fixture(scope="module")
def ran(server: Server, browser):
    """The page after the run, and what each node said, by its type."""
    for side, colour in (("winner", 200), ("loser", 20)):
        folder = server.folder / "input" / "texts_own" / side
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (colour, 60, 60)).save(folder / "a.png")
    write_subject(server.folder / "input" / "texts_photos")
    with tab(browser, server) as view:
        load(view, to_ui(graph(), server.get("/object_info")))
        history = run(view, server)
        assert history["status"]["status_str"] == "success", history["status"]
        kinds = view.evaluate("Object.fromEntries(app.graph._nodes.map(n => [n.id, n.type]))")
        said = {
            kinds[i]: output["text"][0] for i, output in history["outputs"].items() if i in kinds and "text" in output
        }
        (said["DBDPO_Rounds"],) = [
            output["dbdpo_kept"][0] for i, output in history["outputs"].items() if i.endswith("keep_0")
        ]
        yield view, said
        assert not view.errors
        assert not view.left


def reads(view, kind: str, text: str) -> None:
    """A user who looks at the node reads this on it, and no markup."""
    look_at(view, kind, 0.35 if kind == "DBDPO_Rounds" else 0.5)  # its panel makes it taller than the window
    view.wait_for_function(
        f"([kind, text]) => {{ const found = ({READ})(kind); return found?.text === text && found.seen }}",
        arg=[kind, text],
        timeout=15_000,
    )
    assert view.evaluate(READ, kind)["children"] == 0


def reads_all(view, said: dict[str, str]) -> None:
    """The same of all nodes at once, small as they are with all of them on the screen."""
    for _ in range(8):  # a page that was loaded anew goes back to where it looked, in its own time
        fit(view)
        view.wait_for_timeout(1000)
        found = {kind: view.evaluate(READ, kind) for kind in said}
        if all(found[kind] and found[kind]["seen"] and found[kind]["text"] == text for kind, text in said.items()):
            return
    unread = [kind for kind, text in said.items() if not found[kind] or found[kind]["text"] != text]
    pytest.fail(f"not read on their nodes: {unread}; {found}")


def test_all_of_them_said_something(ran):
    _, said = ran
    assert sorted(said) == NAMES and all(said.values())


@pytest.mark.parametrize("kind", NAMES)
def test_a_node_says_it_where_it_is_read(kind: str, ran):
    view, said = ran
    reads(view, kind, said[kind])
    # Rounds says what Keep Best Round said beside it, on the same pictures: word for word the same where the seeds
    # agree.
    assert view.evaluate(COUNT, said[kind]) == sum(text == said[kind] for text in said.values())


def test_a_node_that_says_nothing_has_no_view(ran):
    view, said = ran
    others = view.evaluate("app.graph._nodes.filter(n => n.widgets?.some(w => w.name === 'said')).map(n => n.type)")
    assert sorted(set(others)) == sorted(said)


def test_a_loop_shows_what_it_kept(ran):
    """Not what an earlier node in its place showed, which newer hosts send again at the end."""
    view, _ = ran
    shown = view.evaluate("Object.keys(app.nodeOutputs[app.graph._nodes.find(n => n.type === 'DBDPO_Rounds').id])")
    assert "dbdpo_kept" in shown and "images" in shown


def test_markup_in_a_text_is_text(ran):
    view, said = ran
    evil = "<img src=x onerror='window.hacked=1'><b>bold</b>"
    kept = view.evaluate(
        """([kind, text]) => {
            const node = app.graph._nodes.find(n => n.type === kind), kept = app.nodeOutputs[node.id]
            app.nodeOutputs[node.id] = { ...kept, text: [text] }
            node.onExecuted?.(app.nodeOutputs[node.id])
            return JSON.parse(JSON.stringify(kept))
        }""",
        ["DBDPO_SaveLora", evil],
    )
    reads(view, "DBDPO_SaveLora", evil)
    assert view.evaluate("window.hacked") is None
    view.evaluate(
        "kept => { const n = app.graph._nodes.find(n => n.type === 'DBDPO_SaveLora'); app.nodeOutputs[n.id] = kept; "
        "n.onExecuted(kept) }",
        kept,
    )
    reads(view, "DBDPO_SaveLora", said["DBDPO_SaveLora"])


def test_the_texts_come_back_after_an_undo_another_tab_and_a_reload(ran):
    view, said = ran
    view.evaluate(
        """() => {
            const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker
            const capture = tracker.captureCanvasState ?? tracker.checkState
            capture.call(tracker)
            app.graph._nodes.find(n => n.type === "DBDPO_LoadToybox").title = "renamed"
            capture.call(tracker)
            return tracker.undo()
        }"""
    )
    view.wait_for_function("app.graph._nodes.find(n => n.type === 'DBDPO_LoadToybox')?.title === 'Load Toybox'")
    reads_all(view, said)
    view.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    view.wait_for_function("app.graph._nodes.length === 0")
    view.evaluate("app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    view.wait_for_function("app.graph._nodes.some(n => n.type === 'DBDPO_SaveLora')")
    reads_all(view, said)
    come_back(view, "DBDPO_SaveLora")
    reads_all(view, said)
