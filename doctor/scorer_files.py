"""Checks the files of scorers: the toybox's own, those in scorer folders, and those in the Hugging Face cache.

Downloads nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..metrics.errors import MetricsError
from ..metrics.model_files import CLIP_WEIGHTS, DINO_WEIGHTS, check_clip_folder, check_dino_folder
from ..toybox.shipped import PARTS, WEIGHTS
from .findings import FAILED, OK, WARNING, Finding

USUAL = {
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": (
        "the usual reward: fidelity and alignment", ("open_clip_config.json", CLIP_WEIGHTS), "0.6 GB",
    ),
    "facebook/dinov2-base": (
        "a judge of fidelity of another backbone", ("config.json", "preprocessor_config.json", DINO_WEIGHTS), "0.35 GB",
    ),
}  # fmt: skip
"""The models that the docs name: use, the files that are needed (the last has the weights), and their size."""


def toybox_finding(weights: Path = WEIGHTS) -> Finding:
    """Check the shipped models: pipeline, reward and judge."""
    gone = [part for part in PARTS if not any((weights / part).rglob("*.safetensors"))]
    if gone:
        remedy = (
            "restore toybox/weights from the repository (a clone without Git LFS or an incomplete copy may lack it)"
        )
        return Finding("toybox", FAILED, f"weights of {', '.join(gone)} are not in {weights}", remedy)
    return Finding("toybox", OK, "its models and scorers are complete: demo and quickstart need no download")


def scorer_findings(roots: Sequence[Path], environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Check the scorers in `roots` (folders of scorers), then report the usual ones that are missing everywhere."""
    whole, broken = _checked(roots)
    findings = [Finding("scorer", WARNING, f"{name}: {why[0]}", why[1], {"name": name}) for name, why in broken.items()]
    cached = {name: path for name in USUAL if (path := _cached(name, environment)) is not None}
    if whole:
        findings.append(
            Finding("scorers", OK, f"{', '.join(whole)} in {', '.join(map(str, roots))}", data={"names": whole})
        )
    for name, (use, files, size) in USUAL.items():
        short = name.split("/")[1]
        if name in cached:
            findings.append(
                Finding("scorer", OK, f"{short} ({use}) is in the cache: {cached[name]}", data={"name": name})
            )
        elif not any(short.lower() in present.lower() for present in whole):
            where = Path(roots[0]) / short if roots else Path(short)
            said = f"{short} ({use}) is missing; your own model needs this scorer or another, the toybox needs neither"
            remedy = f'hf download {name} {" ".join(files)} --local-dir "{where}" ({size})'
            findings.append(Finding("scorer", WARNING, said, remedy, {"name": name}))
    return findings


def _checked(roots: Sequence[Path]) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """Names of the complete scorers, and problem and remedy of the others by name."""
    whole: list[str] = []
    broken: dict[str, tuple[str, str]] = {}
    for root in roots:
        for entry in sorted(root.iterdir()) if root.is_dir() else []:
            clip, dino = ((entry / name).is_file() for name in ("open_clip_config.json", "config.json"))
            if entry.suffix == ".safetensors":
                whole.append(entry.name)
            elif clip or dino:
                try:
                    (check_clip_folder if clip else check_dino_folder)(entry)
                    whole.append(entry.name)
                except MetricsError as error:
                    said, _, remedy = " ".join(str(error).split()).partition(". ")
                    broken[entry.name] = (said, remedy or "download the folder again")
    return whole, broken


def _cached(name: str, environment: Mapping[str, str]) -> Path | None:
    """The folder of a model in the Hugging Face cache if its weights are there, else None."""
    home = Path(
        environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    )
    hub = Path(environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE") or home / "hub")
    snapshots = hub.expanduser() / f"models--{name.replace('/', '--')}" / "snapshots"
    found = sorted(snapshots.glob(f"*/{USUAL[name][1][-1]}"))
    return found[-1].parent if found else None
