"""Writes the blueprints of the node library: the whole work as one node, with the few widgets that an artist sets.

`python tools/blueprints.py` writes subgraphs/*.json with a real ComfyUI's node definitions. The same parts, filled with
the toybox, are examples that run without a model (tools/example_workflows.py).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from family_workflows import DRAWING, TRAINING
from hosting import Server

from example_workflows import TOY_DRAWING, node, scorers, toy_parts
from subgraphs import FOLDER, Part, Socket, to_blueprint

TOY = {"model": ["toy", 0], "clip": ["toy", 1], "vae": ["toy", 2]}
IMPROVE = (
    "Improves the LoRA of a subject in fidelity (likeness to your photos) and alignment (following prompts): samples "
    "candidates, scores them, trains on better/worse pairs for several rounds, keeps the best round, measures before "
    "and after, and saves a LoRA."
)
COMPARE = (
    "Draws the same held-out prompts with each of your LoRA files and without one, scores fidelity and "
    "alignment, and says which is best, or that they cannot be told apart."
)


def widget(name: str, label: str, *ends: str, **more: str) -> Socket:
    """A widget of the part's node, which sets the widget of the same name on inner nodes. more: name there, if other"""
    return Socket(name, tuple((end, more.get("inner", name)) for end in ends), label)


def subject() -> tuple[dict, tuple[Socket, ...]]:
    """Photos, concept, prompts and two scorers, with the widgets of what is the user's own."""
    nodes = {
        "photos": node("DBDPO_SubjectPhotos", 0, 270, (340, 620), folder="my_subject", files=""),
        "concept": node(
            "DBDPO_Concept", 400, 0, (340, 480), identifier="sks", class_noun="dog", references=["photos", 0],
            masks=["photos", 1], held_out=["photos", 2], mask_shows="subject",
        ),
        "prompts": node("DBDPO_PromptSet", 400, 780, (340, 305), concept=["concept", 0], preset="living things"),
        **scorers(400, 1140),
    }  # fmt: skip
    widgets = (
        widget("folder", "photos of it", "photos"),
        widget("identifier", "its name in prompts", "concept"),
        widget("class_noun", "what it is", "concept"),
        widget("preset", "prompts", "prompts"),
    )
    return nodes, widgets


def improvement(left: int, model: list, clip: list, vae: list, name: str, **settings: object) -> dict:
    """The rounds, the comparison with the start, and the file. model: with the LoRA that is improved."""
    links = {"concept": ["concept", 0], "prompts": ["prompts", 0], "scorer": ["scorer", 0], "judge": ["judge", 0]}
    parts = {"clip": clip, "vae": vae}
    loop = {"model": model, **links, "run_name": name, **settings}
    return {
        "rounds": node("DBDPO_Rounds", left, 0, (420, 1860), **_given(loop, parts)),
        "evaluate": node(
            "DBDPO_Evaluate", left + 480, 0, (760, 900), after=["rounds", 0], candidates=["rounds", 3],
            scorer=["scorer", 0], judge=["judge", 0], **_given({"before": model}, parts),
        ),
        "save": node(
            "DBDPO_SaveLora", left + 480, 960, (760, 230), lora=["rounds", 1], model=["rounds", 0],
            filename_prefix=f"dreambooth_dpo/{name}",
        ),
    }  # fmt: skip


def _given(*parts: dict) -> dict:
    """The links and values that there are: what is empty comes from an input of the part."""
    return {name: value for part in parts for name, value in part.items() if value != []}


IMPROVED = (
    Socket("model", (("rounds", 0),), "model with the better LoRA"),
    Socket("lora_name", (("save", 0),), "name of the better LoRA"),
    Socket("report", (("evaluate", 1),), "did it get better?"),
    Socket("before_after", (("evaluate", 0),), "before and after"),
    Socket("gain", (("rounds", 4),), "gain of each round"),
)
COMPARED = (
    Socket("lora_name", (("compare", 0),), "name of the best LoRA"),
    Socket("strength", (("compare", 1),)),
    Socket("model", (("compare", 2),), "model with the best LoRA"),
    Socket("report", (("compare", 6),), "which is best?"),
    Socket("plane", (("compare", 4),), "fidelity and alignment"),
    Socket("sheet", (("compare", 5),), "contact sheet"),
)
SCORED_BY = widget("scorer", "scorer", "scorer"), widget("judge", "judge", "judge", inner="scorer")
SHARE = widget("fidelity_weight", "share of fidelity", "rounds")


def improve() -> Part:
    nodes, widgets = subject()
    lora = node("LoraLoader", 0, 0, (340, 210), lora_name="my_subject.safetensors")
    settings = {"rounds": 3, **DRAWING, **TRAINING}
    return Part(
        "Improve my LoRA",
        IMPROVE,
        {"lora": lora, **nodes, **improvement(800, ["lora", 0], ["lora", 1], [], "improved", **settings)},
        (
            Socket("model", (("lora", "model"),)),
            Socket("clip", (("lora", "clip"),)),
            Socket("vae", (("rounds", "vae"), ("evaluate", "vae"))),
            widget("lora_name", "my LoRA", "lora"),
            *widgets,
            SHARE,
            widget("rounds", "rounds", "rounds"),
            *SCORED_BY,
        ),
        IMPROVED,
        ("dreambooth", "dpo", "better lora", "likeness", "train lora", "one click"),
    )


def compare() -> Part:
    nodes, widgets = subject()
    ends = ("compare",)
    ranked = node(
        "DBDPO_CompareLoras", 800, 0, (820, 1720), concept=["concept", 0], prompts=["prompts", 0],
        scorer=["scorer", 0], judge=["judge", 0], run_name="is_my_lora_any_good", seeds_per_prompt=3,
    )  # fmt: skip
    return Part(
        "Is my LoRA any good",
        COMPARE,
        {**nodes, "compare": ranked},
        (
            *(Socket(name, tuple((end, name) for end in ends)) for name in ("model", "clip", "vae")),
            widget("loras", "my LoRAs", "compare"),
            *widgets,
            *SCORED_BY,
        ),
        COMPARED,
        ("dreambooth", "best epoch", "lora ranking", "which lora", "xy plot"),
    )


def toy_improve() -> Part:
    """Improve my LoRA, filled with the toybox: its subject stands for LoRA and photos."""
    name = "toybox_one_click"
    settings = {"rounds": 1, **TOY_DRAWING}
    return Part(
        "Improve my LoRA (toybox)",
        IMPROVE,
        {**toy_parts(), **improvement(400, *TOY.values(), name, **settings)},
        (widget("concept", "subject", "toy"), SHARE, widget("rounds", "rounds", "rounds")),
        IMPROVED,
    )


def toy_compare() -> Part:
    """Is my LoRA any good, filled with the toybox: four epochs of one training stand for your files."""
    nodes = toy_parts()
    nodes["toy"]["inputs"] |= {"concept": 5, "personalized": False}
    drawing = {name: value for name, value in TOY_DRAWING.items() if name != "candidates_per_prompt"}
    nodes["epochs"] = node("DBDPO_ToyboxEpochs", 400, 0, (380, 210), epochs=4, concept=5, **TOY)
    nodes["compare"] = node(
        "DBDPO_CompareLoras", 840, 0, (820, 1720), **TOY, concept=["concept", 0], prompts=["prompts", 0],
        scorer=["scorer", 0], judge=["judge", 0], loras=["epochs", 0], run_name="toybox_is_my_lora_any_good",
        seeds_per_prompt=2, **drawing,
    )  # fmt: skip
    return Part(
        "Is my LoRA any good (toybox)",
        COMPARE,
        nodes,
        (
            Socket("concept", (("toy", "concept"), ("epochs", "concept")), "subject"),
            Socket("epochs", (("epochs", "epochs"),), "epochs"),
        ),
        COMPARED,
    )


def blueprints(info: dict) -> dict[str, dict]:
    """Contents of subgraphs/ by file name."""
    return {f"{part.name}.json": to_blueprint(part, info) for part in (improve(), compare())}


def write(info: dict, folder: Path = FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    for name, made in blueprints(info).items():
        (folder / name).write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as base, Server(Path(base)) as server:
        write(server.get("/object_info"))
