"""A blueprint as a user meets it: found by the search, placed, linked to a model, set, and run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from hosting import Server

from dreambooth_dpo.toybox.concepts import concept_from_seed

PHOTOS = "my_subject"
SMALL = {
    "DBDPO_Rounds": {
        "candidates_per_prompt": 3, "steps": 5, "cfg": 1.0, "width": 64, "height": 64, "batch_size": 32,
        "train_steps": 4, "pairs_per_step": 4, "accumulation": 1, "seeds_per_prompt": 2, "max_uses": 10,
    },
    "DBDPO_CompareLoras": {
        "steps": 5, "cfg": 1.0, "width": 64, "height": 64, "batch_size": 32, "seeds_per_prompt": 2,
    },
    "DBDPO_Evaluate": {"seeds_per_prompt": 2},
    "CenterCropImages": {"width": 64, "height": 64},
}  # fmt: skip
"""Values of inner nodes: the same work in seconds."""


def prepare(server: Server, concept: int = 0, steps: int = 4, epochs: int = 1) -> list[str]:
    """Photos of a toybox subject in the server's input folder, and LoRAs of it; the longest trained name is last."""
    from PIL import Image

    folder = server.folder / "input" / PHOTOS
    folder.mkdir(parents=True, exist_ok=True)
    for i, photo in enumerate(concept_from_seed(concept).references):
        Image.fromarray(photo).save(folder / f"{i}.png")
    toy = {"class_type": "DBDPO_LoadToybox", "inputs": {"concept": concept, "personalized": False, "steps": 1}}
    links = {"model": ["toy", 0], "clip": ["toy", 1], "vae": ["toy", 2]}
    trained = {"concept": concept, "steps": steps, "epochs": epochs, **links}
    shown = server.run({
        "toy": toy,
        "epochs": {"class_type": "DBDPO_ToyboxEpochs", "inputs": trained},
        "names": {"class_type": "PreviewAny", "inputs": {"source": ["epochs", 0]}},
    })  # fmt: skip
    return shown["outputs"]["names"]["text"][0].splitlines()


def named(concept: int = 0) -> dict[str, str]:
    """The widgets that name the subject of the photos."""
    toy = concept_from_seed(concept)
    return {"identifier": toy.identifier, "class_noun": toy.noun, "folder": PHOTOS}


def _open_search(view, x: float, y: float) -> None:
    """By a double click, once more where a busy page took it for two clicks.

    The search box opens late there, and letters typed before it would be shortcuts of the canvas.
    """
    from playwright.sync_api import TimeoutError as TooLate

    for attempt in range(3):
        view.mouse.dblclick(x, y)
        try:
            view.wait_for_function("document.activeElement?.matches('input, textarea')", timeout=30_000)
            break
        except TooLate:
            if attempt == 2:
                raise
    view.wait_for_timeout(800)


def insert(view, name: str, seen: Callable[[], None] = lambda: None) -> None:
    """A double click on the canvas, a few letters, Enter. seen: called when the search has found it."""
    box = view.evaluate("(({left, top, width, height}) => [left, top, width, height])"
                        "(app.canvas.canvas.getBoundingClientRect())")  # fmt: skip
    x, y = box[0] + box[2] * 0.5, box[1] + box[3] * 0.3
    _open_search(view, x, y)
    view.keyboard.type(name)
    view.get_by_text(name, exact=False).filter(visible=True).first.wait_for()
    view.wait_for_timeout(800)
    seen()
    view.keyboard.press("Enter")
    view.wait_for_timeout(500)
    view.mouse.click(x, y)  # in the newest front end the node follows the pointer until a click
    view.wait_for_function("app.graph._nodes.some(n => n.isSubgraphNode?.())")


def link_toybox(view, concept: int = 0) -> None:
    """Load Toybox, without its own LoRA, at the left of the blueprint's node and linked to it."""
    view.evaluate(
        """concept => {
            const part = app.graph._nodes.find(n => n.isSubgraphNode?.())
            const toy = LiteGraph.createNode("DBDPO_LoadToybox")
            toy.pos = [part.pos[0] - 420, part.pos[1]]
            app.graph.add(toy)
            toy.widgets.find(w => w.name === "personalized").value = false
            toy.widgets.find(w => w.name === "concept").value = concept
            for (const name of ["model", "clip", "vae"])
                toy.connect(
                    toy.outputs.findIndex(o => o.name === name), part, part.inputs.findIndex(i => i.name === name))
        }""",
        concept,
    )


def set_part(view, values: dict[str, object], inner: dict[str, dict] = SMALL) -> dict[str, object]:
    """Sets the widgets of the blueprint's node, and those of its inner nodes by type; what the node then shows."""
    return view.evaluate(
        """([values, inner]) => {
            const part = app.graph._nodes.find(n => n.isSubgraphNode?.())
            const set = (node, name, value) => {
                const widget = node.widgets.find(w => w.name === name)
                widget.value = value
                widget.callback?.(value)
            }
            for (const node of part.subgraph.nodes)
                for (const [name, value] of Object.entries(inner[node.type] ?? {})) set(node, name, value)
            for (const [name, value] of Object.entries(values)) set(part, name, value)
            return Object.fromEntries(part.widgets.map(w => [w.name, w.value]))
        }""",
        [values, inner],
    )


def saved_loras(history: dict) -> list[str]:
    """Names of the LoRAs that a run has saved."""
    texts = [text for shown in history["outputs"].values() for text in shown.get("text", [])]
    return [re.match(r"saved as (.+?\.safetensors)", text)[1] for text in texts if text.startswith("saved as ")]


def listed(server: Server) -> set[str]:
    """Blueprints that the server offers from this pack."""
    entries = server.get("/global_subgraphs").values()
    return {entry["name"] for entry in entries if "dreambooth" in json.dumps(entry)}
