"""Writes docs/family_settings.md: what settings that are auto stand for, by model family, with sources.

    python tools/make_family_table.py

tests/test_makers.py checks that the page is up to date.
"""

from __future__ import annotations

from pathlib import Path

from dreambooth_dpo.dpo_core.families import Family, SizeShift, Sourced, table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "family_settings.md"

HEAD = """# What auto stands for

Written by `python tools/make_family_table.py` from `dpo_core/families.json`.

A setting that is *auto* (0 or "auto" on a node, empty in the YAML file) takes the value of the model's family. The
family is known by the model's class; the page shows it on the node as soon as the model's loader is connected. Most
values are what trainers and ComfyUI's own examples use for **ordinary LoRA training and drawing**. None was measured
with preference training on these models: no such model could be run here.

*beta adapted*: no beta is known to work for the family, so it follows the margins of the pairs (auto-beta, between
100 and 5000; see [method.md](method.md)). *Shift by size* grows with the picture, as in Flux.1. The letters name the
sources below.

| family | time sampling, shift | beta | rate | rank, targets | steps, cfg, size | sampler, scheduler | LoRA names |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def letters() -> dict[str, str]:
    """The letter of each source."""
    return {key: chr(ord("a") + i) for i, key in enumerate(table()[1])}


def _cell(*values: Sourced) -> str:
    """Values with the letters of their sources; equal letters in a row are written once."""
    named, parts = letters(), []
    for i, value in enumerate(values):
        last = i + 1 == len(values) or values[i + 1].source != value.source
        shown = value.value
        text = "by size" if isinstance(shown, SizeShift) else "adapted" if shown is None else f"{shown}"
        if isinstance(shown, float):
            text = f"{shown:g}"
        parts.append(f"{text}<sup>{named[value.source]}</sup>" if last else text)
    return ", ".join(parts)


def row(family: Family) -> str:
    f = family
    cells = [
        f"**{f.name}**" + (f": {f.note}" if f.note else ""),
        _cell(f.time_sampling, f.time_shift) if f.time_sampling.value != "table" else _cell(f.time_sampling),
        _cell(f.beta),
        _cell(f.learning_rate),
        _cell(f.rank, f.targets),
        _cell(f.steps, f.guidance, f.width),
        _cell(f.sampler, f.scheduler),
        "diffusers'" if f.lora_names == "diffusers" else "the model's own",
    ]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    families, sources = table()
    listed = "\n".join(f"- {letter}: {sources[key]}" for key, letter in letters().items())
    return HEAD + "\n".join(row(family) for family in families) + f"\n\n## Sources\n\n{listed}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
