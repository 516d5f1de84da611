"""Toybox graphs for a running ComfyUI in API form: {node id: {class_type, inputs}}."""

from __future__ import annotations

TRAINING = {
    "rank": 8,
    "alpha": 8.0,
    "targets": "all",
    "train_steps": 8,
    "pairs_per_step": 4,
    "accumulation": 1,
    "learning_rate": 1e-4,
    "beta": 2000.0,
    "checkpointing": False,
    "train_seed": 0,
}
SAMPLING = {
    "candidates_per_prompt": 4,
    "seed": 0,
    "steps": 6,
    "cfg": 1.0,
    "sampler_name": "dpmpp_2m",
    "scheduler": "normal",
    "width": 64,
    "height": 64,
    "batch_size": 32,
    "negative": "",
}
PAIRS = {"angle_low": 20, "angle_high": 70, "margin": 0.5, "max_pairs_per_prompt": 6, "max_uses": 3}

_SUBJECT = "a photo of a {identifier} {class_noun}"
_SEEN = ("on wood", "in snow", "in water", "at sunset", "by a brick wall")
SOME_PROMPTS = {
    "text": "\n".join(f"{_SUBJECT}{hat} {place}" for hat in ("", " wearing a red hat") for place in _SEEN),
    "held_out_text": "\n".join(
        f"{_SUBJECT}{hat} {place}" for hat in (" wearing a blue hat", " wearing a pink hat") for place in _SEEN[:4]
    ),
}
"""Inputs for Prompt Set: 10 training and 8 held-out prompts."""
TOY_PROMPTS = {"text": ["toy", 8], "held_out_text": ["toy", 9]}
"""Inputs for Prompt Set: the toybox's own 30 and 20 prompts."""

_PLACES = ("in the snow", "on sand", "in a forest", "on a table", "at night", "in a city")
FEW_PROMPTS = {
    "text": "\n".join(f"a {{identifier}} {{class_noun}} {place}" for place in _PLACES),
    "held_out_text": "\n".join(f"a red {{identifier}} {{class_noun}} {place}" for place in _PLACES[:4]),
}
"""Inputs for Prompt Set: 6 training and 4 held-out prompts."""


def node(kind: str, **inputs: object) -> dict:
    """A node of this pack."""
    return {"class_type": f"DBDPO_{kind}", "inputs": inputs}


def lora_by_socket(model: list, lora: list, strength: object) -> dict:
    """The stock loader of a LORA_MODEL.

    Newer hosts require `bypass`; 0.3.64 ignores unknown inputs.
    """
    return {
        "class_type": "LoraModelLoader",
        "inputs": {"model": model, "lora": lora, "strength_model": strength, "bypass": False},
    }


def words(source: list) -> dict:
    """A node that shows a text output."""
    return {"class_type": "PreviewAny", "inputs": {"source": source}}


def toy_loop_graph(**changes: dict) -> dict:
    """One small round on a toybox concept: {node id: {class_type, inputs}}.

    changes: inputs by node id.
    """
    model, clip, vae = (["toy", i] for i in range(3))
    texts = {"preset": "own text", **SOME_PROMPTS, "held_out_share": 0.4, "seed": 0}
    photos = {"references": ["toy", 3], "held_out": ["toy", 4], "masks": ["toy", 5]}
    subject = {"concept": ["concept", 0], "prompts": ["prompts", 0], "run_name": "quick"}
    measuring = {"scorer": ["scorer", 0], "judge": ["judge", 0], "seeds_per_prompt": 2, "seed": 1_000_003}
    graph = {
        "toy": node("LoadToybox", concept=0, personalized=True, steps=20),
        "concept": node("Concept", identifier=["toy", 6], class_noun=["toy", 7], **photos),
        "prompts": node("PromptSet", concept=["concept", 0], **texts),
        "sample": node("SampleCandidates", model=model, clip=clip, vae=vae, **subject, **SAMPLING),
        "scorer": node("LoadScorer", scorer="toybox reward", architecture=""),
        "judge": node("LoadScorer", scorer="toybox judge", architecture=""),
        "score": node("Score", candidates=["sample", 0], scorer=["scorer", 0]),
        "pairs": node("BuildPairs", scored=["score", 0], **PAIRS),
        "look": node("PreviewPairs", pairs=["pairs", 0], page=1, pairs_per_page=4),
        "train": node("TrainStep", model=model, clip=clip, pairs=["pairs", 0], **TRAINING),
        "save": node("SaveLora", lora=["train", 1], filename_prefix="dreambooth_dpo/quick"),
        "evaluate": node(
            "Evaluate", before=model, after=["train", 0], clip=clip, vae=vae, candidates=["sample", 0], **measuring
        ),
    }
    for name, inputs in changes.items():
        graph[name]["inputs"].update(inputs)
    return graph


def rounds_by_hand(run_name: str, rounds: int = 2, **training: object) -> dict:
    """Rounds by hand, each followed by Keep Best Round; only the outputs of the last one are saved.

    Nodes of round n end with _n.
    """
    graph = toy_loop_graph(sample={"run_name": run_name}, train=training)
    keep = {k: v for k, v in graph["evaluate"]["inputs"].items() if k != "after"}
    stages = {name: graph.pop(name) for name in ("sample", "score", "pairs", "train")}
    del graph["look"], graph["evaluate"]
    model = ["toy", 0]
    for n in range(1, rounds + 1):
        for name, stage in stages.items():
            graph[f"{name}_{n}"] = {"class_type": stage["class_type"], "inputs": dict(stage["inputs"])}
        graph[f"sample_{n}"]["inputs"] |= {"model": model, "seed": n - 1}
        graph[f"score_{n}"]["inputs"]["candidates"] = [f"sample_{n}", 0]
        graph[f"pairs_{n}"]["inputs"]["scored"] = [f"score_{n}", 0]
        graph[f"train_{n}"]["inputs"] |= {"model": model, "pairs": [f"pairs_{n}", 0], "train_seed": n - 1}
        model = [f"train_{n}", 0]
        round_ = {"after": model, "lora": [f"train_{n}", 1], "candidates": [f"sample_{n}", 0], "patience": 2}
        so_far = {"so_far": [f"keep_{n - 1}", 2]} if n > 1 else {}
        graph[f"keep_{n}"] = node("KeepBest", **{**keep, **round_, **so_far})
    graph["save"]["inputs"] = {"lora": [f"keep_{rounds}", 1], "filename_prefix": run_name}
    graph["said"] = words([f"keep_{rounds}", 4])
    return graph


def loop_inputs(graph: dict) -> dict:
    """The inputs of DPO Rounds that stand for the nodes of one round."""
    taken = {**graph["sample"]["inputs"], **graph["pairs"]["inputs"], **graph["train"]["inputs"]}
    return {k: v for k, v in taken.items() if k not in ("scored", "pairs")} | {"scorer": ["scorer", 0]}


def rounds_in_one(rounds: int) -> dict:
    """DPO Rounds with keep = last, in the run `rounds`."""
    graph = toy_loop_graph()
    inputs = loop_inputs(graph) | {"model": ["toy", 0], "run_name": "rounds", "rounds": rounds, "keep": "last"}
    kept = {k: graph[k] for k in ("toy", "concept", "prompts", "scorer")}
    look = {"class_type": "PreviewImage", "inputs": {"images": ["rounds", 2]}}
    return {**kept, "rounds": node("Rounds", **inputs), "look": look}


def tiny_rounds(run_name: str, rounds: int, train_steps: int, **given: object) -> dict:
    """DPO Rounds of a few prompts whose LoRA is saved; its steps are so small that no guard ends it.

    given: further inputs of DPO Rounds.
    """
    training = {"train_steps": train_steps, "learning_rate": 1e-5}
    found = toy_loop_graph(toy={"steps": 5}, prompts=FEW_PROMPTS, train=training, pairs={"max_uses": 10})
    inputs = loop_inputs(found) | {"run_name": run_name, "rounds": rounds, "steps": 3, "margin": 0.1}
    kept = {name: found[name] for name in ("toy", "concept", "prompts", "scorer", "save")}
    kept["save"]["inputs"] = {"lora": ["rounds", 1], "filename_prefix": run_name}
    return {**kept, "rounds": node("Rounds", **inputs, seeds_per_prompt=2, **given), "said": words(["rounds", 5])}
