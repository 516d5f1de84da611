"""The one-click examples: a blueprint filled with the toybox, and what it gives. One opens as an app (App Mode)."""

from __future__ import annotations

from blueprints import toy_compare, toy_improve

from example_workflows import node, note, words
from subgraphs import with_parts

FIRST_NOTE = """# Start here: press Run
**A few minutes on a CPU.** Nothing is downloaded.

A tiny model has learned a subject from five photos. The node draws candidates, scores them, trains a LoRA on the better
and worse ones, measures it on prompts that training never saw, and saves it.

- *share of fidelity*: more of the subject (1), or more of the prompt (0)
- *rounds*: each takes longer
- *subject*: another number is another subject

**Your own LoRA:** search the node library for *Improve my LoRA*. To look inside, enter the subgraph.
"""
WHICH_NOTE = """# Start here: press Run
**A few minutes on a CPU.** Nothing is downloaded.

Four epochs of one LoRA stand for your files. The node draws the same held-out prompts with each and without a LoRA,
scores **fidelity** and **alignment**, and ranks them.

**Your own files:** search the node library for *Is my LoRA any good*."""
NAMES = ("a_first_run", "a_first_run_as_an_app", "is_my_lora_any_good")
"""Names that can be opened by a link (letters, digits, underscores); Browse Templates shows no other title."""


def _first_run() -> dict:
    return {
        "improve": node(toy_improve().id, 420, 0, (400, 250), toy_improve().name),
        "name": words(420, 340, (400, 140), "Your better LoRA, in models/loras", ["improve", 1]),
        "picture": node("PreviewImage", 860, 0, (600, 420), "Before and after, by prompt", images=["improve", 3]),
        "report": words(860, 500, (600, 290), "Did it get better?", ["improve", 2]),
        "gain": node("PreviewImage", 420, 560, (400, 270), "Gain of each round", images=["improve", 4]),
    }


def _which() -> dict:
    return {
        "compare": node(toy_compare().id, 420, 0, (400, 240), toy_compare().name),
        "report": words(420, 340, (400, 300), "Which is best?", ["compare", 3]),
        "sheet": node("PreviewImage", 860, 0, (600, 640), "The same prompts with each LoRA", images=["compare", 5]),
    }


def as_app(workflow: dict, inputs: list[tuple[int, str]], outputs: list[int], opens: bool) -> dict:
    """The workflow with an app over it (front end 1.41.13 and later): widgets to set, nodes whose pictures are shown.

    opens: whether it opens as the app; else the app is one click away, and older front ends see the same graph.
    """
    data = {"inputs": [[str(n), widget] for n, widget in inputs], "outputs": [str(n) for n in outputs]}
    return {**workflow, "extra": {**workflow["extra"], "linearData": data, "linearMode": opens}}


def one_click(info: dict) -> dict[str, dict]:
    """The examples by name, as they are saved."""
    first = with_parts(_first_run(), [toy_improve()], info, [note(FIRST_NOTE, 0, 0, (380, 480))])
    inputs, outputs = [(1, "fidelity_weight"), (1, "rounds"), (1, "concept")], [3, 5]
    which = with_parts(_which(), [toy_compare()], info, [note(WHICH_NOTE, 0, 0, (380, 400))])
    apps = (
        as_app(first, inputs, outputs, opens=False),
        as_app(first, inputs, outputs, opens=True),
        as_app(which, [(1, "epochs"), (1, "concept")], [3], opens=False),
    )
    return dict(zip(NAMES, apps, strict=True))
