"""Writes the example workflows from short graph definitions.

`python tools/example_workflows.py` writes example_workflows/*.json with a real ComfyUI's node definitions.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from example_notes import (
    COMPARE_NOTE,
    DRAFTS_NOTE,
    INSPECT_NOTE,
    ROUNDS_NOTE,
    SD15_FILES,
    SDXL_FILES,
    TOY_NOTE,
    USER_NOTE,
)
from family_workflows import (
    DRAWING,
    FAMILIES,
    JUDGE,
    REWARD,
    SCORERS,
    TRAINING,
    TURBO_LEFT,
    Files,
    loaders,
    note_text,
    verification,
)
from hosting import Server
from workflows import FOLDER, to_ui

TOY_DRAWING = {
    "candidates_per_prompt": 10, "steps": 12, "cfg": 1.0, "sampler_name": "dpmpp_2m", "scheduler": "sgm_uniform",
    "width": 64, "height": 64, "batch_size": 32,
}  # fmt: skip
SD15 = {"candidates_per_prompt": 8, "steps": 20, "cfg": 4.0, "width": 512, "height": 512, "batch_size": 8}
SDXL = {"candidates_per_prompt": 8, "steps": 20, "cfg": 4.0, "width": 1024, "height": 1024, "batch_size": 4}


def node(kind: str, left: int, top: int, size: tuple[int, int], title: str = "", **inputs: object) -> dict:
    return {
        "class_type": kind,
        "inputs": inputs,
        "pos": [left, top],
        "size": list(size),
        **({"title": title} if title else {}),
    }


def words(left: int, top: int, size: tuple[int, int], title: str, source: list) -> dict:
    """A node that shows a stage's text on the canvas."""
    return node("PreviewAny", left, top, size, title, source=source)


def toy_parts() -> dict:
    return {
        "toy": node("DBDPO_LoadToybox", 0, 0, (340, 345), concept=0, personalized=True, steps=120),
        "concept": node(
            "DBDPO_Concept", 0, 400, (340, 480), identifier=["toy", 6], class_noun=["toy", 7], references=["toy", 3],
            held_out=["toy", 4], masks=["toy", 5],
        ),
        "prompts": node(
            "DBDPO_PromptSet", 0, 1180, (340, 305), concept=["concept", 0], preset="own text", text=["toy", 8],
            held_out_text=["toy", 9],
        ),
        "scorer": node("DBDPO_LoadScorer", 0, 1540, (340, 240), "Scorer that trains", scorer="toybox reward"),
        "judge": node("DBDPO_LoadScorer", 0, 1835, (340, 240), "Judge that never trains", scorer="toybox judge"),
    }  # fmt: skip


def checkpoint_parts(checkpoint: str) -> dict:
    """A checkpoint with the user's LoRA, and the subject."""
    return {
        "checkpoint": node("CheckpointLoaderSimple", -400, 0, (340, 165), ckpt_name=checkpoint),
        "lora": node(
            "LoraLoader",
            -400,
            220,
            (340, 210),
            model=["checkpoint", 0],
            clip=["checkpoint", 1],
            lora_name="my_subject.safetensors",
        ),
        **subject_parts(490),
    }


def scorers(left: int, top: int) -> dict:
    """The two scorers that the README installs."""
    kind, size = "DBDPO_LoadScorer", (340, 240)
    return {
        "scorer": node(kind, left, top, size, "Scorer that trains", scorer=REWARD),
        "judge": node(kind, left, top + 295, size, "Judge that never trains", scorer=JUDGE),
    }


def subject_parts(top: int) -> dict:
    """Photos (the node at this height), the concept, its prompts, and two scorers."""
    photos = {"references": ["photos", 0], "masks": ["photos", 1], "held_out": ["photos", 2], "mask_shows": "subject"}
    return {
        "photos": node("DBDPO_SubjectPhotos", -400, top, (340, 780), "Drop your photos here", files="example.png"),
        "concept": node("DBDPO_Concept", 0, 0, (340, 480), identifier="sks", class_noun="dog", **photos),
        "prompts": node("DBDPO_PromptSet", 0, 780, (340, 305), concept=["concept", 0], preset="living things"),
        **scorers(0, 1140),
    }


def loop(model: list, clip: list, vae: list, drawing: dict, training: dict, run_name: str) -> dict:
    """One round, with a node for each stage."""
    return {
        "sample": node(
            "DBDPO_SampleCandidates", 400, 0, (380, 875), model=model, clip=clip, vae=vae, concept=["concept", 0],
            prompts=["prompts", 0], run_name=run_name, **drawing,
        ),
        "score": node("DBDPO_Score", 840, 0, (420, 460), candidates=["sample", 0], scorer=["scorer", 0]),
        "pairs": node("DBDPO_BuildPairs", 840, 520, (420, 850), scored=["score", 0]),
        "pairs_words": words(840, 1670, (420, 160), "Pairs in words", ["pairs", 2]),
        "train": node(
            "DBDPO_TrainStep", 1320, 630, (420, 1110), model=model, clip=clip, pairs=["pairs", 0], **training
        ),
        "look": node("DBDPO_PreviewPairs", 1320, 0, (420, 570), pairs=["pairs", 0]),
    }  # fmt: skip


def ending(
    before: list, after: list, lora: list, clip: list, vae: list, candidates: list, name: str, left: int
) -> dict:
    return {
        "evaluate": node(
            "DBDPO_Evaluate", left, 0, (760, 900), before=before, after=after, clip=clip, vae=vae,
            candidates=candidates, scorer=["scorer", 0], judge=["judge", 0],
        ),
        "report": words(left, 960, (760, 220), "Did it get better?", ["evaluate", 1]),
        "save": node(
            "DBDPO_SaveLora", left, 1240, (760, 230), lora=lora, filename_prefix=f"dreambooth_dpo/{name}", model=after,
        ),
    }  # fmt: skip


def note(text: str, left: int, top: int, size: tuple[int, int] = (340, 260)) -> dict:
    return {"text": text, "pos": [left, top], "size": list(size)}


COMPARED, COMPARED_PROMPT = 5, "a photo of a mxl bottle in snow"


def inspected(toy: dict) -> dict:
    """The quickstart with Inspect Pairs between pairs and training."""
    graph = {**toy_parts(), **loop(*toy.values(), TOY_DRAWING, {}, "toybox_inspect_pairs")}
    del graph["look"]
    graph["inspect"] = node("DBDPO_InspectPairs", 1320, 0, (1240, 1100), pairs=["pairs", 0])
    graph["inspect_words"] = words(1320, 1160, (1240, 160), "Your decisions in words", ["inspect", 1])
    train = graph.pop("train")  # placed after the inspector, whose output it takes
    graph["train"] = {**train, "pos": [2620, 0], "inputs": {**train["inputs"], "pairs": ["inspect", 0]}}
    return {
        **graph,
        **ending(toy["model"], ["train", 0], ["train", 1], toy["clip"], toy["vae"], ["sample", 0], "toybox", 3100),
    }


def drafted(toy: dict) -> dict:
    """The quickstart with drafts: many candidates in few steps, of which only those in pairs are finished.

    The finished candidates are scored and paired again.
    """
    drawing = {**TOY_DRAWING, "candidates_per_prompt": 16, "steps": 4}
    graph = {**toy_parts(), **loop(*toy.values(), drawing, {}, "toybox_drafts")}
    graph["pairs"]["inputs"]["margin"] = 1.0
    later = {name: graph.pop(name) for name in ("score", "pairs", "pairs_words", "look", "train")}
    for name in ("score", "pairs", "pairs_words"):
        graph[f"draft_{name}"] = {**later[name], "inputs": dict(later[name]["inputs"])}
        later[name]["pos"] = [1800, later[name]["pos"][1]]
    graph["draft_pairs"]["inputs"]["scored"], graph["draft_pairs_words"]["inputs"]["source"] = (
        ["draft_score", 0],
        ["draft_pairs", 2],
    )
    for name, title in (
        ("sample", "Drafts: 4 steps"),
        ("draft_score", "Score drafts"),
        ("draft_pairs", "Pairs of drafts"),
    ):
        graph[name]["title"] = title
    graph["draft_pairs_words"]["title"] = "Pairs of drafts in words"
    graph["finish"] = node(
        "DBDPO_FinishCandidates",
        1320,
        0,
        (420, 670),
        "Finish those in pairs: 12 steps",
        **toy,
        pairs=["draft_pairs", 0],
        steps=12,
    )
    graph["finish_words"] = words(1320, 970, (420, 160), "Candidates finished", ["finish", 2])
    later["score"]["inputs"]["candidates"] = ["finish", 0]
    later["look"]["pos"], later["train"]["pos"] = [2280, 0], [2280, 630]
    return {
        **graph,
        **later,
        **ending(toy["model"], ["train", 0], ["train", 1], toy["clip"], toy["vae"], ["finish", 0], "toybox", 2760),
    }


def compared(toy: dict) -> dict:
    """Twelve epochs of one toybox LoRA, ranked; a picture of the best one by the stock loader."""
    parts = toy_parts()
    parts["toy"]["inputs"] |= {"concept": COMPARED, "personalized": False}
    drawing = {k: v for k, v in TOY_DRAWING.items() if k != "candidates_per_prompt"}
    sampling = {"seed": 0, "steps": 12, "cfg": 1.0, "sampler_name": "dpmpp_2m", "scheduler": "sgm_uniform"}
    return {
        **parts,
        "epochs": node(
            "DBDPO_ToyboxEpochs", 400, 0, (380, 210), "Your trainer: twelve epochs", concept=COMPARED, **toy,
        ),
        "compare": node(
            "DBDPO_CompareLoras", 840, 0, (820, 1720), **toy, concept=["concept", 0], prompts=["prompts", 0],
            scorer=["scorer", 0], judge=["judge", 0], loras=["epochs", 0], run_name="toybox_compare", **drawing,
            seeds_per_prompt=3,
        ),
        "report": words(840, 2020, (820, 360), "Which epoch is best?", ["compare", 6]),
        "sheet": node("PreviewImage", 1720, 0, (1240, 760), "Contact sheet, by rank", images=["compare", 5]),
        "lora": node(
            "LoraLoader", 1720, 820, (400, 190), "The best one, by ComfyUI's own loader", model=toy["model"],
            clip=toy["clip"], lora_name=["compare", 0], strength_model=["compare", 1], strength_clip=["compare", 1],
        ),
        "positive": node("CLIPTextEncode", 1720, 1100, (400, 160), clip=["lora", 1], text=COMPARED_PROMPT),
        "empty": node("EmptyLatentImage", 1720, 1330, (400, 160), width=128, height=128, batch_size=4),
        "sampler": node(
            "KSampler", 2180, 820, (380, 420), model=["lora", 0], positive=["positive", 0], negative=["positive", 0],
            latent_image=["empty", 0], denoise=1.0, **sampling,
        ),
        "decode": node("VAEDecode", 2180, 1300, (380, 90), samples=["sampler", 0], vae=toy["vae"]),
        "pictures": node("PreviewImage", 2620, 820, (340, 420), "Pictures with the best epoch", images=["decode", 0]),
    }  # fmt: skip


def graphs() -> dict[str, tuple[dict, list[dict]]]:
    # Every output node depends on the stages. With an independent output, the host would run that one when a stage's
    # input is wrong, and the front end would not show the error.
    toy = {"model": ["toy", 0], "clip": ["toy", 1], "vae": ["toy", 2]}
    quick = {
        **toy_parts(),
        **loop(*toy.values(), TOY_DRAWING, {}, "toybox_quickstart"),
        **ending(toy["model"], ["train", 0], ["train", 1], toy["clip"], toy["vae"], ["sample", 0], "toybox", 1800),
    }
    rounds = {
        **toy_parts(),
        "rounds": node(
            "DBDPO_Rounds", 400, 0, (420, 2400), **toy, concept=["concept", 0], prompts=["prompts", 0],
            scorer=["scorer", 0], judge=["judge", 0], rounds=3, run_name="toybox_three_rounds", **TOY_DRAWING,
        ),
        "watch": node("PreviewImage", 880, 0, (420, 380), "Gain of each round", images=["rounds", 4]),
        "kept_words": words(880, 440, (420, 260), "Which round is kept?", ["rounds", 5]),
        "curves": node("PreviewImage", 880, 760, (420, 440), "Training of the last round", images=["rounds", 2]),
        **ending(
            toy["model"], ["rounds", 0], ["rounds", 1], toy["clip"], toy["vae"], ["rounds", 3], "toybox", 1360
        ),
    }  # fmt: skip
    rounds["save"] |= {"pos": [880, 1260], "size": [420, 230]}
    found = {
        "toybox_quickstart": (quick, [note(TOY_NOTE, -400, 0, (340, 520))]),
        "toybox_three_rounds": (rounds, [note(ROUNDS_NOTE, -400, 0, (340, 440))]),
        "toybox_drafts": (drafted(toy), [note(DRAFTS_NOTE, -400, 0, (340, 560))]),
        "toybox_inspect_pairs": (inspected(toy), [note(INSPECT_NOTE, -400, 0, (340, 480))]),
        "toybox_compare_epochs": (compared(toy), [note(COMPARE_NOTE, -400, 0, (340, 600))]),
    }
    for name, checkpoint, files, drawing, training in (
        ("sd15_lora_improve", "v1-5-pruned-emaonly-fp16.safetensors", SD15_FILES, SD15, {
            "pairs_per_step": 4, "accumulation": 2,
        }),
        ("sdxl_lora_improve", "sd_xl_base_1.0.safetensors", SDXL_FILES, SDXL, {
            "pairs_per_step": 1, "accumulation": 8, "learning_rate": 2e-5, "checkpointing": True,
            "targets": "attention+ff",
        }),
    ):  # fmt: skip
        model, clip, vae = ["lora", 0], ["lora", 1], ["checkpoint", 2]
        graph = {
            **checkpoint_parts(checkpoint),
            **loop(model, clip, vae, drawing, training, name),
            **ending(model, ["train", 0], ["train", 1], clip, vae, ["sample", 0], "my_subject", 1800),
        }
        found[name] = (graph, [note(USER_NOTE.format(files=files, scorers=SCORERS), -900, 0, (440, 640))])
    return found | {name: family_graph(name, files) for name, files in FAMILIES.items()}


def family_graph(name: str, files: Files) -> tuple[dict, list[dict]]:
    """One round for a family whose parts are loaded one by one; with a fast model, what the LoRA does for it."""
    model, clip, vae = ["lora", 0], ["encoder", 0], ["vae", 0]
    graph = {
        **loaders(files, node),
        **subject_parts(785),
        **loop(model, clip, vae, DRAWING, TRAINING, name),
        **ending(model, ["train", 0], ["train", 1], clip, vae, ["sample", 0], "my_subject", 1800),
        **(verification(files, node, words) if files.turbo else {}),
    }
    return graph, [note(note_text(files), -900, 0, (440, 640))]


COLUMNS = {
    "toybox_quickstart": {
        "1 Subject": (0, 400), "2 Candidates": (400, 840), "3 Pairs": (840, 1320), "4 Train": (1320, 1800),
        "5 Result": (1800, 3000),
    },
    "toybox_three_rounds": {
        "1 Subject": (0, 400), "2 Candidates, 3 Pairs, 4 Train, round by round": (400, 880), "5 Result": (880, 3000),
    },
    "toybox_drafts": {
        "1 Subject": (0, 400), "2 Drafts": (400, 840), "Which drafts are worth finishing?": (840, 1320),
        "2 Candidates": (1320, 1800), "3 Pairs": (1800, 2280), "4 Train": (2280, 2760), "5 Result": (2760, 4000),
    },
    "toybox_inspect_pairs": {
        "1 Subject": (0, 400), "2 Candidates": (400, 840), "3 Pairs": (840, 1320), "Your decisions": (1320, 2600),
        "4 Train": (2600, 3100), "5 Result": (3100, 4000),
    },
    "toybox_compare_epochs": {
        "1 Subject": (0, 400), "2 LoRAs": (400, 840), "3 Which is best?": (840, 1720), "4 Result": (1720, 4000),
    },
}  # fmt: skip
OWN_COLUMNS = {
    "1 Model, LoRA and subject": (-400, 400), "2 Candidates": (400, 840), "3 Pairs": (840, 1320),
    "4 Train": (1320, 1800), "5 Result": (1800, TURBO_LEFT), "6 On the fast model": (TURBO_LEFT, 9000),
}  # fmt: skip
"""Groups of the examples by the left edges of their nodes."""


def columns_of(name: str, graph: dict) -> dict[str, tuple[int, int]]:
    """The groups of an example, without those that it has no node for."""
    lefts = [entry["pos"][0] for entry in graph.values()]
    listed = COLUMNS.get(name, OWN_COLUMNS)
    return {title: (low, high) for title, (low, high) in listed.items() if any(low <= x < high for x in lefts)}


def workflows(info: dict) -> dict[str, dict]:
    """All examples by name, as they are saved."""
    from one_click import one_click

    made = {name: to_ui(graph, info, notes, columns_of(name, graph)) for name, (graph, notes) in graphs().items()}
    return {**one_click(info), **made}


def write(info: dict, folder: Path = FOLDER) -> None:
    for name, made in workflows(info).items():
        text = json.dumps(made, indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as base, Server(Path(base)) as server:
        write(server.get("/object_info"))
