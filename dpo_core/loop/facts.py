"""Stores the facts of a run that the report needs, and writes the run's LoRA at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..concept import Concept, doubts
from ..run.files import atomic_path
from ..run.folder import RunFolder
from ..training.lora_files import save_lora
from .rounds import Loop


def scorer_fact(role: str, title: str, higher_is_better: bool | None) -> dict[str, Any]:
    """What a report's words need to know of a score."""
    return {"role": role, "title": title, "higher_is_better": higher_is_better}


def keep_facts(loop: Loop, concept_fact: dict, concept: Concept, about: Mapping[str, tuple[str, str, bool]]) -> None:
    """Store the facts that the report needs, and the reference photos.

    about: role, title, and whether higher is better, of each scorer by name.
    """
    run = loop.run
    scorers = {scorer.name: scorer_fact(*about[scorer.name]) for scorer in [*loop.rewards, *loop.judges]}
    run.set_fact("settings", loop.settings.model_dump(mode="json"))
    run.set_fact("concept", concept_fact)
    run.set_fact("scorers", scorers)
    unscored = {s.name: why for s in [*loop.rewards, *loop.judges] if (why := getattr(s, "unscored", ""))}
    run.set_fact("unscored", unscored or None)
    run.set_fact("unseen", list(loop.prompts.unseen))
    run.set_fact("references", len(concept.references))
    run.set_fact("doubts", doubts(concept))
    keep_references(run, concept)


def keep_references(run: RunFolder, concept: Concept) -> None:
    """Store the reference photos for the report: <run>/references/00.png, ..."""
    from PIL import Image

    for i, pixels in enumerate(concept.references):
        with atomic_path(run.path / "references" / f"{i:02d}.png") as beside:
            Image.fromarray(pixels).save(beside)


def finish(loop: Loop, rounds: int, name: str) -> Path:
    """Write the LoRA of the adapter as it is now; return its path.

    Where the original is kept (`rounds` 0), that LoRA has no effect. The best round that was tried is then written as
    well, as <name>_tried_round_<k>.
    """
    concept = json.dumps(loop.run.fact("concept"), ensure_ascii=False)

    def write(stem: str, number: int) -> Path:
        path = loop.run.path / f"{stem}.safetensors"
        about = {"dreambooth_dpo.rounds": str(number), "dreambooth_dpo.concept": concept}
        save_lora(loop.adapter, path, about, getattr(loop.model, "component", "unet"))
        return path

    path, tried = write(name, rounds), (loop.run.fact("kept") or {}).get("best")
    if not rounds and tried and (found := loop.run.load_state(f"adapter_{tried}")):
        kept = loop.adapter.state()
        loop.adapter.load(found[0])
        write(f"{name}_tried_round_{tried}", tried)
        loop.adapter.load(kept)
    return path
